package network

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rule is what nft's grammar calls statements: matches, then a verdict.
type rule []expr.Any

// when joins matches and statements into one rule.
func when(parts ...rule) rule { return slices.Concat(parts...) }

const (
	reg   = unix.NFT_REG_1
	reg32 = unix.NFT_REG32_00 // the first of the 4-byte registers, which overlap the 16-byte ones
)

// Offsets in the IPv4 header, in the Ethernet header and in TCP's and UDP's.
const (
	srcAddr, dstAddr = 12, 16
	srcMAC           = 6
	dstPort          = 2
)

func meta(key expr.MetaKey, to uint32) expr.Any { return &expr.Meta{Key: key, Register: to} }

func cmp(op expr.CmpOp, data ...byte) expr.Any {
	return &expr.Cmp{Op: op, Register: reg, Data: data}
}

func network(offset, length, to uint32) expr.Any {
	return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length, DestRegister: to}
}

// from and to match interfaces whose names begin with lead.
func from(lead string) rule {
	return rule{meta(expr.MetaKeyIIFNAME, reg), cmp(expr.CmpOpEq, []byte(lead)...)}
}

func to(lead string) rule {
	return rule{meta(expr.MetaKeyOIFNAME, reg), cmp(expr.CmpOpEq, []byte(lead)...)}
}

// name is an interface's whole name, as registers and sets hold it.
func name(link string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, link)
	return b
}

func ipv4() rule { return rule{meta(expr.MetaKeyNFPROTO, reg), cmp(expr.CmpOpEq, unix.NFPROTO_IPV4)} }

func protocol(p byte) rule { return rule{meta(expr.MetaKeyL4PROTO, reg), cmp(expr.CmpOpEq, p)} }

func port(p uint16) rule {
	return rule{
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: dstPort, Len: 2, DestRegister: reg},
		cmp(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, p)...),
	}
}

// within matches an address at offset that is in p, or with CmpOpNeq is not.
func within(op expr.CmpOp, offset uint32, p netip.Prefix) rule {
	mask := fromUint(^uint32(0) << (32 - p.Bits())).AsSlice()
	return rule{
		network(offset, 4, reg),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		cmp(op, p.Addr().AsSlice()...),
	}
}

func inSet(s *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID}
}

func notInSet(s *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID, Invert: true}
}

func sourceIn(s *nftables.Set) rule    { return rule{network(srcAddr, 4, reg), inSet(s)} }
func sourceNotIn(s *nftables.Set) rule { return rule{network(srcAddr, 4, reg), notInSet(s)} }
func destIn(s *nftables.Set) rule      { return rule{network(dstAddr, 4, reg), inSet(s)} }

// pairIn matches source . destination.
func pairIn(s *nftables.Set) rule {
	return rule{network(srcAddr, 4, reg32), network(dstAddr, 4, reg32+1), inSet(s)}
}

// identityIn matches interface . MAC . source address.
func identityIn(s *nftables.Set) rule {
	return rule{
		meta(expr.MetaKeyIIFTYPE, reg), cmp(expr.CmpOpEq, binaryutil.NativeEndian.PutUint16(unix.ARPHRD_ETHER)...),
		meta(expr.MetaKeyIIFNAME, reg32), // 16 bytes
		&expr.Payload{Base: expr.PayloadBaseLLHeader, Offset: srcMAC, Len: 6, DestRegister: reg32 + 4}, // padded to 8
		network(srcAddr, 4, reg32+6),
		inSet(s),
	}
}

func identity(link string, mac []byte, ip netip.Addr) []byte {
	return slices.Concat(name(link), mac, []byte{0, 0}, ip.AsSlice())
}

func conntrack(states uint32) rule {
	return rule{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(states), Xor: make([]byte, 4)},
		cmp(expr.CmpOpNeq, 0, 0, 0, 0),
	}
}

// reply matches what answers a flow that others began.
func reply() rule {
	return when(conntrack(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED),
		rule{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, cmp(expr.CmpOpEq, 1)})
}

// toHost matches destinations that are the host's own addresses.
func toHost() rule {
	return rule{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		cmp(expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)...),
	}
}

// tooMany matches when the source has more than max flows; s remembers them.
func tooMany(s *nftables.Set, max uint32) rule {
	return rule{
		network(srcAddr, 4, reg),
		&expr.Dynset{SrcRegKey: reg, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_ADD,
			Exprs: []expr.Any{&expr.Connlimit{Count: max, Flags: expr.NFT_CONNLIMIT_F_INV}}},
	}
}

func verdict(kind expr.VerdictKind, chain string) rule {
	return rule{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() rule           { return verdict(expr.VerdictAccept, "") }
func drop() rule             { return append(rule{&expr.Counter{}}, verdict(expr.VerdictDrop, "")...) }
func goTo(chain string) rule { return verdict(expr.VerdictGoto, chain) }
