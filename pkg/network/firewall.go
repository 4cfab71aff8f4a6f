package network

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// entry is what the rules know about one sandbox.
type entry struct {
	id      string
	address netip.Addr
	access
}

// firewall is the server's nftables table. Its entries are the truth: what the
// kernel has lost is written again from them.
type firewall struct {
	cfg  Config
	pool pool
	lead string // of the interfaces' names

	mu      sync.Mutex
	entries map[netip.Addr]entry
}

func newFirewall(cfg Config, p pool) *firewall {
	return &firewall{cfg: cfg, pool: p, lead: linkPrefix + cfg.Prefix, entries: map[netip.Addr]entry{}}
}

func (f *firewall) table() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: tablePrefix + f.cfg.Prefix}
}

// standby is the table of replace.
func (f *firewall) standby() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: tablePrefix + f.cfg.Prefix + "_standby"}
}

// sets are the table's sets. Those above the line are the server's, those below
// hold a sandbox's elements.
type sets struct {
	allow, allowHosts, flows *nftables.Set

	sandboxes, open, allowed, hosts *nftables.Set
}

func (f *firewall) sets(t *nftables.Table) sets {
	addr := nftables.TypeIPAddr
	pair := nftables.MustConcatSetType(addr, addr)
	return sets{
		allow:      &nftables.Set{Table: t, ID: 2, Name: "allow", KeyType: addr, Interval: true},
		allowHosts: &nftables.Set{Table: t, ID: 3, Name: "allow_hosts", KeyType: addr},
		flows:      &nftables.Set{Table: t, ID: 4, Name: "flows", KeyType: addr, Dynamic: true, Size: 1 << 16},
		sandboxes: &nftables.Set{Table: t, ID: 5, Name: "sandboxes", Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr, addr)},
		open:    &nftables.Set{Table: t, ID: 6, Name: "open", KeyType: addr},
		allowed: &nftables.Set{Table: t, ID: 7, Name: "allowed", KeyType: pair, Concatenation: true, Interval: true},
		hosts:   &nftables.Set{Table: t, ID: 8, Name: "hosts", KeyType: pair, Concatenation: true},
	}
}

// elements are what the sets hold of e.
func (s sets) elements(e entry) iter.Seq2[*nftables.Set, nftables.SetElement] {
	source := e.address.AsSlice()
	return func(yield func(*nftables.Set, nftables.SetElement) bool) {
		if !yield(s.sandboxes, nftables.SetElement{Key: identity(hostLink(e.id), macOf(e.address), e.address)}) {
			return
		}
		if !e.block && !yield(s.open, nftables.SetElement{Key: source}) {
			return
		}
		for _, n := range e.nets {
			from, to := slices.Concat(source, n.from.AsSlice()), slices.Concat(source, n.to.AsSlice())
			if !yield(s.allowed, nftables.SetElement{Key: from, KeyEnd: to}) {
				return
			}
		}
		for _, h := range e.hosts {
			if !yield(s.hosts, nftables.SetElement{Key: slices.Concat(source, h.AsSlice())}) {
				return
			}
		}
	}
}

// add writes the elements of e into the transaction.
func (s sets) add(conn *nftables.Conn, e entry) error {
	for set, el := range s.elements(e) {
		if err := conn.SetAddElements(set, []nftables.SetElement{el}); err != nil {
			return err
		}
	}
	return nil
}

// remove takes the elements of e that are not those of keep as well.
func (s sets) remove(conn *nftables.Conn, e entry, keep *entry) error {
	kept := map[string]bool{}
	name := func(set *nftables.Set, el nftables.SetElement) string {
		return set.Name + " " + string(el.Key) + string(el.KeyEnd)
	}
	if keep != nil {
		for set, el := range s.elements(*keep) {
			kept[name(set, el)] = true
		}
	}
	for set, el := range s.elements(e) {
		if kept[name(set, el)] {
			continue
		}
		if err := conn.SetDeleteElements(set, []nftables.SetElement{el}); err != nil {
			return err
		}
	}
	return nil
}

// intervals are the elements of an interval set of addresses. What reaches to
// the last address has no end.
func intervals(list []span) []nftables.SetElement {
	var out []nftables.SetElement
	for _, s := range list {
		out = append(out, nftables.SetElement{Key: s.from.AsSlice()})
		if end := s.to.Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// put writes the elements of e, in place of those that its address had. The
// change is one transaction; when the kernel does not have what it should, the
// whole table is written again.
func (f *firewall) put(e entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, had := f.entries[e.address]
	f.entries[e.address] = e
	err := f.change(func(conn *nftables.Conn, s sets) error {
		if had {
			if err := s.remove(conn, old, &e); err != nil {
				return err
			}
		}
		return s.add(conn, e)
	})
	if err != nil && f.replace() != nil {
		delete(f.entries, e.address)
		if had {
			f.entries[e.address] = old
		}
		return fmt.Errorf("adding the rules of %s: %w", e.id, err)
	}
	return nil
}

// remove takes the elements of the sandbox that had address. Idempotent.
func (f *firewall) remove(address netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.entries[address]
	if !ok {
		return nil
	}
	delete(f.entries, address)
	err := f.change(func(conn *nftables.Conn, s sets) error { return s.remove(conn, e, nil) })
	if err != nil && f.replace() != nil {
		f.entries[address] = e
		return fmt.Errorf("removing the rules of %s: %w", e.id, err)
	}
	return nil
}

func (f *firewall) change(fill func(*nftables.Conn, sets) error) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	if err := fill(conn, f.sets(f.table())); err != nil {
		return err
	}
	return conn.Flush()
}

// reset writes the whole table.
func (f *firewall) reset() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replace()
}

// replace writes the whole table from the entries, in place of the one that is
// there. That is one transaction, and yet not seamless: a packet that is between
// two hooks while it commits may meet the old table emptied and not yet the new
// one. So a second table with the same rules stands by until it is done.
func (f *firewall) replace() error {
	t, standby := f.table(), f.standby()
	if len(f.entries) > 0 {
		if err := f.write(standby); err != nil {
			return err
		}
	}
	return errors.Join(f.write(t), deleteTable(standby))
}

// write makes t anew in one transaction.
func (f *firewall) write(t *nftables.Table) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.AddTable(t) // so that there is one to delete
	conn.DelTable(t)
	conn.AddTable(t)
	s := f.sets(t)
	static := map[*nftables.Set][]nftables.SetElement{
		s.allow: intervals(spans(f.cfg.Allow)), s.allowHosts: addresses(single(f.cfg.Allow)),
	}
	for _, set := range []*nftables.Set{s.allow, s.allowHosts, s.flows, s.sandboxes, s.open, s.allowed, s.hosts} {
		if err := conn.AddSet(set, static[set]); err != nil {
			return err
		}
	}
	for _, e := range f.entries {
		if err := s.add(conn, e); err != nil {
			return err
		}
	}
	f.addChains(conn, t, s)
	return conn.Flush()
}

func addresses(list []netip.Addr) []nftables.SetElement {
	var out []nftables.SetElement
	for _, a := range list {
		out = append(out, nftables.SetElement{Key: a.AsSlice()})
	}
	return out
}

type chain struct {
	name     string
	hook     *nftables.ChainHook // nil: reached by goto alone
	priority *nftables.ChainPriority
	kind     nftables.ChainType
	rules    []rule
}

func (f *firewall) addChains(conn *nftables.Conn, t *nftables.Table, s sets) {
	policy := nftables.ChainPolicyAccept
	chains := f.chains(s)
	made := map[string]*nftables.Chain{}
	for _, c := range chains { // all of them before the rules that go to them
		n := &nftables.Chain{Table: t, Name: c.name, Hooknum: c.hook, Priority: c.priority, Type: c.kind}
		if c.hook != nil {
			n.Policy = &policy
		}
		made[c.name] = conn.AddChain(n)
	}
	for _, c := range chains {
		for _, r := range c.rules {
			conn.AddRule(&nftables.Rule{Table: t, Chain: made[c.name], Exprs: r})
		}
	}
}

// chains is the policy. A verdict of accept ends one hook only; the packet still
// meets the later ones. No packet passes because a set does not have an element:
// while a transaction commits, lookups may miss what is being replaced.
func (f *firewall) chains(s sets) []chain {
	filter := nftables.ChainTypeFilter
	service := netip.PrefixFrom(f.pool.service(), 32)
	outbound := []rule{
		when(ipv4(), sourceNotIn(s.open), drop()),
		when(ipv4(), destIn(s.allow), accept()),
		when(ipv4(), pairIn(s.allowed), accept()),
	}
	for _, p := range denied {
		outbound = append(outbound, when(ipv4(), within(expr.CmpOpEq, dstAddr, p), drop()))
	}
	gateway := func(proto byte, p uint16) rule {
		return when(ipv4(), within(expr.CmpOpEq, dstAddr, service), protocol(proto), port(p), accept())
	}
	return []chain{
		{"guard", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, filter, []rule{
			when(from(f.lead), goTo("source")),
			when(from("lo\x00"), accept()),
			when(ipv4(), within(expr.CmpOpEq, dstAddr, f.pool.Prefix), drop()),
		}},
		{"source", nil, nil, "", []rule{
			when(ipv4(), identityIn(s.sandboxes), accept()),
			drop(),
		}},
		{"fresh", nftables.ChainHookPrerouting, nftables.ChainPriorityMangle, filter, []rule{
			when(from(f.lead), goTo("flows_of")),
		}},
		{"flows_of", nil, nil, "", []rule{
			when(conntrack(expr.CtStateBitINVALID), drop()),
			when(conntrack(expr.CtStateBitNEW), ipv4(), tooMany(s.flows, uint32(f.cfg.MaxFlows)), drop()),
			when(toHost(), goTo("to_host")),
		}},
		{"input", nftables.ChainHookInput, nftables.ChainPriorityFilter, filter, []rule{
			when(from(f.lead), goTo("to_host")),
		}},
		{"to_host", nil, nil, "", []rule{
			when(reply(), accept()),
			gateway(unix.IPPROTO_UDP, dnsPort),
			gateway(unix.IPPROTO_TCP, dnsPort),
			gateway(unix.IPPROTO_TCP, f.cfg.RegistryPort),
			when(ipv4(), sourceIn(s.open), destIn(s.allowHosts), accept()),
			when(ipv4(), sourceIn(s.open), pairIn(s.hosts), accept()),
			drop(),
		}},
		{"forward", nftables.ChainHookForward, nftables.ChainPriorityFilter, filter, []rule{
			when(to(f.lead), goTo("inbound")),
			when(ipv4(), within(expr.CmpOpEq, dstAddr, f.pool.Prefix), drop()), // nobody has it
			when(from(f.lead), goTo("outbound")),
		}},
		{"inbound", nil, nil, "", []rule{
			when(from(f.lead), drop()),
			when(reply(), accept()),
			drop(),
		}},
		{"outbound", nil, nil, "", append(outbound, accept())},
		{"nat", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainTypeNAT, []rule{
			when(ipv4(), within(expr.CmpOpEq, srcAddr, f.pool.Prefix), within(expr.CmpOpNeq, dstAddr, f.pool.Prefix), rule{&expr.Masq{}}),
		}},
	}
}

// intact reports whether the kernel has the table with all of its chains.
func (f *firewall) intact() (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, err
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, err
	}
	have := 0
	for _, c := range chains {
		if c.Table.Name == f.table().Name {
			have++
		}
	}
	return have == len(f.chains(f.sets(f.table()))), nil
}

// load reads the entries that an earlier server left in the kernel.
func (f *firewall) load() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil || !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == f.table().Name }) {
		return err
	}
	s := f.sets(f.table())
	known, err := conn.GetSetElements(s.sandboxes)
	if err != nil {
		return err
	}
	for _, k := range known {
		if e, ok := f.parse(k.Key); ok {
			e.block = true // until it is found in open
			f.entries[e.address] = e
		}
	}
	return errors.Join(
		f.read(conn, s.open, func(e *entry, _ nftables.SetElement) { e.block = false }),
		f.read(conn, s.allowed, func(e *entry, el nftables.SetElement) {
			if len(el.Key) == 8 && len(el.KeyEnd) == 8 {
				e.nets = append(e.nets, span{netip.AddrFrom4([4]byte(el.Key[4:])), netip.AddrFrom4([4]byte(el.KeyEnd[4:]))})
			}
		}),
		f.read(conn, s.hosts, func(e *entry, el nftables.SetElement) {
			if len(el.Key) == 8 {
				e.hosts = append(e.hosts, netip.AddrFrom4([4]byte(el.Key[4:])))
			}
		}))
}

// read applies every element of set to the entry that its first address names.
func (f *firewall) read(conn *nftables.Conn, set *nftables.Set, apply func(*entry, nftables.SetElement)) error {
	list, err := conn.GetSetElements(set)
	for _, el := range list {
		if len(el.Key) < 4 {
			continue
		}
		if e, ok := f.entries[netip.AddrFrom4([4]byte(el.Key[:4]))]; ok {
			apply(&e, el)
			f.entries[e.address] = e
		}
	}
	return err
}

// parse is the inverse of identity.
func (f *firewall) parse(key []byte) (entry, bool) {
	if len(key) != unix.IFNAMSIZ+8+4 {
		return entry{}, false
	}
	e := entry{id: unix.ByteSliceToString(key[len(linkPrefix):unix.IFNAMSIZ]), address: netip.AddrFrom4([4]byte(key[unix.IFNAMSIZ+8:]))}
	_, ok := f.pool.index(e.address)
	return e, ok && idPattern.MatchString(e.id)
}

// list returns the entries.
func (f *firewall) list() []entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]entry, 0, len(f.entries))
	for _, e := range f.entries {
		out = append(out, e)
	}
	return out
}

// delete removes the tables. Idempotent.
func (f *firewall) delete() error {
	return errors.Join(deleteTable(f.table()), deleteTable(f.standby()))
}

func deleteTable(t *nftables.Table) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.AddTable(t)
	conn.DelTable(t)
	return conn.Flush()
}
