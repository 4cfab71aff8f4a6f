package cli

import (
	"strconv"
	"strings"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/worker"
)

const poolForm = "IMAGE[,size=N][,memory=SIZE][,disk=SIZE][,docker[=PROFILE]]"

// declaredPools reads the --pool-of flags of `innerdock server`.
func declaredPools(flags []string) ([]worker.DeclaredPool, error) {
	var pools []worker.DeclaredPool
	for _, flag := range flags {
		p, ok := declaredPool(flag)
		if !ok {
			return nil, usage("--pool-of %s: write it as %s, such as python3.11,size=10,docker", flag, poolForm)
		}
		pools = append(pools, p)
	}
	return pools, nil
}

func declaredPool(flag string) (p worker.DeclaredPool, ok bool) {
	fields := strings.Split(flag, ",")
	spec := innerdock.PoolSpec{Size: 1}
	given := map[string]bool{}
	for _, field := range fields[1:] {
		key, value, valued := strings.Cut(field, "=")
		if given[key] || valued && value == "" || !valued && key != "docker" {
			return p, false
		}
		given[key] = true
		switch key {
		case "size":
			n, err := strconv.Atoi(value)
			if err != nil {
				return p, false
			}
			spec.Size = n
		case "memory":
			spec.Memory = value
		case "disk":
			spec.Disk = value
		case "docker":
			spec.Docker = innerdock.DockerSpec{Enabled: true, Profile: innerdock.DockerProfile(value)}
		default:
			return p, false
		}
	}
	if imageID.MatchString(fields[0]) {
		spec.Image = fields[0]
		return worker.DeclaredPool{Spec: spec}, true
	}
	image := imageFlags{docker: string(innerdock.DockerSourceAuto)}
	def, err := image.definition(fields[0], spec.Docker.Enabled)
	return worker.DeclaredPool{Definition: def, Spec: spec}, err == nil && fields[0] != ""
}
