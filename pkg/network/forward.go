package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// Docker, ufw and others set the policy of the host's forward chain to drop,
// and no accept of ours overrides a drop of theirs. So their chain gets two
// rules, for our interfaces alone, that leave the decision to our own table.

// forwardChain is a chain of another program that drops what is forwarded.
type forwardChain struct {
	table, chain string // for people, such as "ip filter"
	opened       bool   // our rules are in it
	open, close  func() error
	mend         []string // commands that do what open does
}

// closedForwards finds the chains that would drop our packets. lead is what
// our interfaces' names begin with.
func closedForwards(ctx context.Context, lead string) ([]forwardChain, error) {
	native, err := closedNative(lead)
	legacy, legacyErr := closedLegacy(ctx, lead)
	return append(native, legacy...), errors.Join(err, legacyErr)
}

// openForward lets our interfaces through those chains that are closed to them.
func openForward(chains []forwardChain, log *slog.Logger) error {
	var errs []error
	for _, c := range chains {
		if c.opened {
			continue
		}
		if err := c.open(); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", c.table, c.chain, err))
			continue
		}
		log.Info("the host drops forwarded packets; sandboxes are let through", "table", c.table, "chain", c.chain)
	}
	return errors.Join(errs...)
}

// closeForward undoes openForward.
func closeForward(ctx context.Context, lead string) error {
	chains, err := closedForwards(ctx, lead)
	for _, c := range chains {
		if c.opened {
			err = errors.Join(err, c.close())
		}
	}
	return err
}

func closedNative(lead string) ([]forwardChain, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	all, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	var out []forwardChain
	for _, c := range all {
		ip := c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyINet
		if !ip || c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || c.Type != nftables.ChainTypeFilter ||
			strings.HasPrefix(c.Table.Name, tablePrefix) {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return out, fmt.Errorf("reading the chain %s of the table %s: %w", c.Name, c.Table.Name, err)
		}
		mine := slices.DeleteFunc(slices.Clone(rules), func(r *nftables.Rule) bool { return comment(r) != commentOf(lead) })
		drops := c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		if drops || endsInDrop(rules) || len(mine) > 0 {
			out = append(out, nativeChain(conn, c, lead, mine))
		}
	}
	return out, nil
}

func nativeChain(conn *nftables.Conn, c *nftables.Chain, lead string, mine []*nftables.Rule) forwardChain {
	family := "ip"
	if c.Table.Family == nftables.TableFamilyINet {
		family = "inet"
	}
	nft := fmt.Sprintf("nft insert rule %s %s %s", family, c.Table.Name, c.Name)
	return forwardChain{
		table: family + " " + c.Table.Name, chain: c.Name, opened: len(mine) >= 2,
		open: func() error {
			for _, match := range []rule{from(lead), to(lead)} {
				conn.InsertRule(&nftables.Rule{Table: c.Table, Chain: c, UserData: commentData(lead),
					Exprs: when(match, rule{&expr.Counter{}}, accept())})
			}
			return conn.Flush()
		},
		close: func() error {
			for _, r := range mine {
				if err := conn.DelRule(r); err != nil {
					return err
				}
			}
			return conn.Flush()
		},
		mend: []string{nft + ` iifname "` + lead + `*" accept`, nft + ` oifname "` + lead + `*" accept`},
	}
}

// endsInDrop reports whether the last rule drops or rejects everything.
func endsInDrop(rules []*nftables.Rule) bool {
	if len(rules) == 0 {
		return false
	}
	for _, e := range rules[len(rules)-1].Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			return true
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop
		default:
			return false
		}
	}
	return false
}

func commentOf(lead string) string { return "innerdock " + lead }

func commentData(lead string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, commentOf(lead))
}

func comment(r *nftables.Rule) string {
	text, _ := userdata.GetString(r.UserData, userdata.TypeComment)
	return text
}

const (
	legacyTables = "/proc/net/ip_tables_names"
	legacyTool   = "iptables-legacy"
)

// closedLegacy looks at the old iptables, which has an interface of its own in
// the kernel, and only where it is in use: asking would load it.
func closedLegacy(ctx context.Context, lead string) ([]forwardChain, error) {
	tables, err := os.ReadFile(legacyTables)
	if err != nil || !slices.Contains(strings.Fields(string(tables)), "filter") {
		return nil, nil
	}
	rules, err := legacy(ctx, "-S", "FORWARD")
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil // nobody can have set a policy with it
	}
	if err != nil {
		return nil, err
	}
	in, out := []string{"-i", lead + "+", "-j", "ACCEPT"}, []string{"-o", lead + "+", "-j", "ACCEPT"}
	lines := strings.Split(rules, "\n")
	has := func(r []string) bool { return slices.Contains(lines, "-A FORWARD "+strings.Join(r, " ")) }
	if !slices.Contains(lines, "-P FORWARD DROP") && !has(in) && !has(out) {
		return nil, nil
	}
	return []forwardChain{{
		table: "iptables-legacy filter", chain: "FORWARD", opened: has(in) && has(out),
		open: func() error {
			for _, r := range [][]string{in, out} {
				if _, err := legacy(ctx, append([]string{"-I", "FORWARD"}, r...)...); err != nil {
					return err
				}
			}
			return nil
		},
		close: func() error {
			for _, r := range [][]string{in, out} {
				if _, err := legacy(ctx, append([]string{"-D", "FORWARD"}, r...)...); err != nil {
					return err
				}
			}
			return nil
		},
		mend: []string{
			legacyTool + " -I FORWARD " + strings.Join(in, " "), legacyTool + " -I FORWARD " + strings.Join(out, " "),
		},
	}}, nil
}

func legacy(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, legacyTool, append([]string{"-w", "5"}, args...)...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}
