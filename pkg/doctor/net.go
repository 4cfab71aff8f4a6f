package doctor

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/innerdock/innerdock/pkg/network"
)

// mild are findings with which sandboxes run, if not as well as they could.
var mild = []string{"way to the internet", "forward chains of others", "DNS"}

// networking asks the network itself.
func networking(pool netip.Prefix) func(context.Context) []Check {
	return func(ctx context.Context) []Check {
		var checks []Check
		for _, finding := range network.Diagnose(ctx, network.Config{Pool: pool}) {
			checks = append(checks, networkCheck(finding))
		}
		return checks
	}
}

func networkCheck(finding network.Finding) Check {
	if finding.OK {
		return ok(finding.Name, finding.Detail)
	}
	fix := strings.ReplaceAll(strings.TrimSpace(finding.Mend), "\n", "; ")
	fix = cmp.Or(fix, "read the detail; it has no usual remedy")
	if slices.Contains(mild, finding.Name) {
		return warn(finding.Name, finding.Detail, fix)
	}
	return fail(finding.Name, finding.Detail, fix)
}
