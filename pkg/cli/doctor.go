package cli

import (
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock/pkg/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	var data, runsc, pool string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine can run a server",
		Long: `Check whether this machine can run a server: one line a check, and under each
that is not in order the command that mends it. The exit code is 1 when the
server could not work.`,
		Example: `  sudo innerdock doctor
  sudo innerdock doctor -o json`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&data, "data", defaultData, "directory of the server's state")
	cmd.Flags().StringVar(&runsc, "runsc", "", "path of runsc (default: the newest in the cache, else from PATH)")
	cmd.Flags().StringVar(&pool, "pool", defaultPool, "addresses for the sandboxes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		prefix, err := netip.ParsePrefix(pool)
		if err != nil {
			return usage("--pool %s is not a CIDR such as %s", pool, defaultPool)
		}
		path, err := a.findRunsc(runsc)
		if err != nil {
			path = runsc // the check says what to do about it
		}
		checks := doctor.Run(cmd.Context(), doctor.Options{Data: data, Runsc: path, Pool: prefix})
		if err := a.show(checks, nil, func() table { return doctorTable(checks) }); err != nil {
			return err
		}
		if !doctor.Healthy(checks) {
			return &exitError{code: 1}
		}
		return nil
	}
	return cmd
}

func doctorTable(checks []doctor.Check) table {
	var t table
	for _, check := range checks {
		t.add(string(check.Status), check.Name, check.Detail)
		if check.Fix != "" {
			t.add("", "", "→ "+check.Fix)
		}
	}
	return t
}
