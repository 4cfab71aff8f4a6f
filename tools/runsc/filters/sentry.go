package main

import (
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/platforms" // registers them
	"gvisor.dev/gvisor/runsc/boot/filter/config"
)

// rules is what config.PrecompiledPrograms compiles for 576 combinations of
// options, devices of the host among them, which takes minutes. Should gVisor
// rename it, this does not link.
//
//go:linkname rules gvisor.dev/gvisor/runsc/boot/filter/config.rules
func rules(config.Options, precompiledseccomp.Values) (allow, deny seccomp.SyscallRules)

// sentryPrograms compiles the filters of the sandbox kernels that innerdock
// starts: the platforms systrap and KVM, with and without direct access to the
// mounts' files, with the sandbox's own network stack, and no device of the host.
func sentryPrograms() ([]precompiledseccomp.Program, error) {
	var programs []precompiledseccomp.Program
	for _, name := range []string{"systrap", "kvm"} {
		constructor, err := platform.Lookup(name)
		if err != nil {
			return nil, err
		}
		for _, info := range constructor.PrecompiledSeccompInfo() {
			for _, direct := range []bool{false, true} {
				program, err := sentryProgram(config.Options{Platform: info, HostFilesystem: direct})
				if err != nil {
					return nil, err
				}
				programs = append(programs, program)
			}
		}
	}
	return programs, nil
}

func sentryProgram(opt config.Options) (precompiledseccomp.Program, error) {
	var variables []string
	for name := range opt.Vars() {
		variables = append(variables, name)
	}
	return precompiledseccomp.Precompile(opt.ConfigKey(), variables, func(values precompiledseccomp.Values) *seccomp.Program {
		allow, deny := rules(opt, values)
		return &seccomp.Program{
			RuleSets: []seccomp.RuleSet{{Rules: deny.Copy()}, {Rules: allow.Copy(), Action: seccomp.Allow}},
			Options:  config.SeccompOptions(opt),
		}
	})
}
