package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect SANDBOX",
		Short: "Show all there is to know about a sandbox",
		Long:  "Show all there is to know about a sandbox and its processes, as JSON unless -o table is given.",
		Example: `  innerdock inspect build
  innerdock inspect -o table build`,
		Args: cobra.ExactArgs(1),
		RunE: a.withClient(func(ctx context.Context, c *innerdock.Client, args []string) error {
			sandbox, err := c.Sandbox(ctx, args[0])
			if err != nil {
				return err
			}
			details := inspection{Sandbox: sandbox, Processes: []innerdock.Process{}}
			if sandbox.State == innerdock.StateRunning {
				if processes, err := c.Processes(ctx, sandbox.ID); err == nil {
					details.Processes = processes
				}
			}
			if a.format == "" {
				a.format = formatJSON
			}
			return a.show(details, []string{sandbox.ID}, details.table)
		}),
	}
}

// inspection is a sandbox with what runs in it.
type inspection struct {
	innerdock.Sandbox
	Processes []innerdock.Process `json:"processes"`
}

func (i inspection) table() table {
	var t table
	t.add("ID", i.ID)
	t.add("Name", orDash(i.Name))
	t.add("State", string(i.State))
	if i.Reason != "" {
		t.add("Reason", i.Reason)
	}
	t.add("Image", i.Image)
	t.add("CPU", strconv.FormatFloat(i.CPU, 'g', -1, 64))
	t.add("Memory", size(i.Memory))
	t.add("Disk", size(i.Disk))
	if i.Start != "" {
		t.add("Start", string(i.Start))
	}
	t.add("Address", orDash(i.Address))
	t.add("Docker", string(i.Docker.State)+" "+i.Docker.Version)
	if i.Docker.Reason != "" {
		t.add("Docker reason", i.Docker.Reason)
	}
	if i.Docker.Restarts > 0 {
		t.add("Docker restarts", strconv.Itoa(i.Docker.Restarts))
	}
	t.add("Created", i.CreatedAt.Format(time.RFC3339))
	if i.EndedAt != nil {
		t.add("Ended", i.EndedAt.Format(time.RFC3339))
	}
	for _, phase := range slices.Sorted(maps.Keys(i.Timings)) {
		t.add("Took: "+phase, fmt.Sprintf("%.3f s", i.Timings[phase]))
	}
	for _, p := range i.Processes {
		state := string(p.State)
		if p.ExitCode != nil {
			state = fmt.Sprintf("exited %d", *p.ExitCode)
		}
		t.add(fmt.Sprintf("Process %d", p.PID), fmt.Sprintf("%s: %q", state, p.Args))
	}
	return t
}
