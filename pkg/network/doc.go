// Package network gives every sandbox its own network namespace, joined to the
// host by one veth pair, and decides what may pass through it.
//
// A sandbox reaches the public internet through masquerade. It never reaches
// another sandbox, an address of the host, a private range or a metadata
// service, unless its Policy or the server's Config allows it; and nothing new
// reaches it from outside. Two gateway services are offered on ServiceAddr: DNS
// (package dnsproxy) and the registry cache.
//
// # Rules
//
// One nftables table per server, `inet innerdock_<prefix>`, holds a constant
// set of chains; a sandbox is a handful of elements in their sets. Packets from
// an interface that the sets do not know are dropped, so a veth without its
// elements is closed, and every change is one transaction. The table is written
// over netlink (google/nftables): attaching forks nothing, and errors are
// errno values instead of text.
//
//	guard    prerouting, before conntrack: interface, MAC and source address must
//	         be those of one sandbox; IPv6 never passes; the pool is not reachable
//	         from other interfaces
//	fresh    prerouting, before any DNAT: the number of flows, and destinations
//	         that are the host itself
//	input    what is for the host: the gateway services, replies, named addresses
//	forward  out: deny list below allow list; in: replies alone
//	nat      masquerade of the pool towards everything else
//
// The kernel holds the state: Open reads the sets that an earlier server left
// and replaces the table while a second one stands by, so a live sandbox is never
// without its rules. What other programs of the host take away, such as a flush
// of the whole ruleset, is noticed and written again.
//
// # Names
//
// Everything on the host is named from the sandbox's ID, whose first four
// characters are the server's prefix: the namespace `innerdock-<id>`, the veth
// `idk<id>`, the service interface `idk<prefix>`. The /30 with index 0 of the
// pool is the service's, the others are the sandboxes'.
package network
