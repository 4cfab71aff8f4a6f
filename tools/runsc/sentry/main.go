// Command sentry is gVisor's kernel alone, without the verbs of runsc: the
// sidecar gvisor_sentry that runsc boots a sandbox with when it lies in
// gvisor-bin/ beside it.
package main

import (
	"gvisor.dev/gvisor/runsc/cli"
	"gvisor.dev/gvisor/runsc/cmd/sentry/sentrycmd"
	"gvisor.dev/gvisor/runsc/cmd/util"
	"gvisor.dev/gvisor/runsc/gvisorbinaries"
)

func main() {
	const group = "internal use only"
	cli.Run(&gvisorbinaries.GvisorSentry, map[util.SubCommand]string{
		&sentrycmd.Boot{}:   group,
		&sentrycmd.Umount{}: group,
	}, nil)
}
