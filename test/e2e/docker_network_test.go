package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/innerdock/innerdock"
)

// A container reaches those of its own network and the world, and nothing else,
// whatever its bridge is called and whatever routes it makes.
func TestDockerNetworksAreApart(t *testing.T) {
	t.Parallel()
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "4Gi"})
	sh := func(line string) string { t.Helper(); return shared.sh(t, sandbox.ID, line) }
	networks := []string{"bridge", "user", "named", "inner"}
	sh(`docker network create user
docker network create -o com.docker.network.bridge.name=mine named
docker network create --internal inner
for n in ` + strings.Join(networks, " ") + `; do docker run -d --name on-$n --network $n nginx:latest; done
docker pull -q busybox:latest`)
	const address = `$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' on-%)`
	// The registry cache is outside; a forged default route leads to the bridge.
	sh(`cat > /probe.sh <<'END'
gateway=$(ip -4 address show eth0 | sed -n 's/.*inet \([0-9]*\.[0-9]*\)\..*/\1.0.1/p')
ip route add default via $gateway 2>/dev/null
wget -T 3 -qO /dev/null http://$1/ && echo open || echo closed
END`)
	probe := func(from, target string) string {
		return strings.TrimSpace(sh("docker run --rm --cap-add NET_ADMIN -v /probe.sh:/probe.sh --network " + from + " busybox:latest sh /probe.sh " + target + " 2>/dev/null"))
	}
	expect := func(from, to, got string, open bool) {
		t.Helper()
		if want := map[bool]string{true: "open", false: "closed"}[open]; got != want {
			t.Errorf("from network %s to %s it is %s, not %s", from, to, got, want)
		}
	}
	outside := `$(docker info --format '{{index .RegistryConfig.Mirrors 0}}' | sed 's|http://||; s|/$||')/v2`
	for _, from := range networks {
		for _, to := range networks {
			expect(from, to, probe(from, strings.ReplaceAll(address, "%", to)), from == to)
		}
		expect(from, "the world", probe(from, outside), from != "inner")
	}
	// A name that an internal network had, and what a restart of dockerd leaves.
	sh(`docker network create --internal -o com.docker.network.bridge.name=again one && docker network rm one && docker network create -o com.docker.network.bridge.name=again two && kill -9 $(pidof dockerd)`)
	expect("two", "the world", probe("two", outside), true)
	expect("inner", "the world", probe("inner", outside), false)
}

// A container gets the packets that are for it, and not what others of its network
// send to each other or to the world.
func TestABridgeKeepsPacketsApart(t *testing.T) {
	t.Parallel()
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "2Gi"})
	sh := func(line string) string { t.Helper(); return shared.sh(t, sandbox.ID, line) }
	sh(`docker network create app
docker run -d --name web --network app nginx:latest
docker run -d --name other --network app nginx:latest
docker exec web sh -c 'head -c 10000000 /dev/zero > /usr/share/nginx/html/big'`)
	received := func(container string) (bytes int) {
		t.Helper()
		got := sh("docker exec " + container + ` sed -n 's/.*eth0: *\([0-9]*\).*/\1/p' /proc/net/dev`)
		if _, err := fmt.Sscan(got, &bytes); err != nil {
			t.Fatalf("%s has received %q: %v", container, got, err)
		}
		return bytes
	}
	sh("docker run --rm --network app busybox:latest wget -qO /dev/null http://web/big")
	sh(`curl -sf -o /dev/null http://$(docker inspect -f '{{.NetworkSettings.Networks.app.IPAddress}}' web)/big`)
	if n := received("other"); n > 1e5 {
		t.Errorf("a container has received %d bytes of what was not for it", n)
	}
	if n := received("web"); n < 1e3 {
		t.Errorf("a server has received %d bytes: does nobody count?", n)
	}
}

// What containers send each other is left in large packets, and what they send to
// the world arrives as it was sent, in packets that fit.
func TestLargePacketsOfContainers(t *testing.T) {
	t.Parallel()
	const megabytes = 20
	address, heard, served := world(t, megabytes<<20)
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{CPU: 2, Memory: "2Gi", Network: innerdock.NetworkSpec{Allow: []string{address + "/32"}}})
	sh := func(line string) string { t.Helper(); return shared.sh(t, sandbox.ID, line) }
	sh(`docker network create app; docker network create -o com.docker.network.driver.mtu=1280 narrow
docker run -d --name web --network app nginx:latest
docker exec web sh -c 'head -c 20000000 /dev/urandom > /usr/share/nginx/html/big'`)
	got := strings.Fields(sh(`docker exec web sha256sum /usr/share/nginx/html/big
docker run --rm --network app busybox:latest sh -c 'wget -qO - http://web/big | sha256sum; sed -n "s/.*eth0: *//p" /proc/net/dev'`))
	if len(got) < 6 || got[2] != got[0] {
		t.Fatalf("a download from a container and its traffic are %q", got)
	}
	var bytes, packets int
	if _, err := fmt.Sscan(got[4]+" "+got[5], &bytes, &packets); err != nil || bytes < 20e6 || bytes/packets < 5000 {
		t.Errorf("%d bytes came in %d packets, %v", bytes, packets, err)
	}
	for _, network := range []string{"bridge", "narrow"} {
		sent := sh(fmt.Sprintf(`docker run --rm --network %s busybox:latest sh -c '
head -c %d /dev/urandom > /f; sha256sum /f; nc %s 9100 < /f; nc %s 9200 < /dev/null | sha256sum'`, network, megabytes<<20, address, address))
		up := <-heard
		if sums := strings.Fields(sent); len(sums) != 4 || sums[0] != up || sums[2] != served {
			t.Errorf("on %s, what was sent and received has the sums %q; the world heard %s and said %s", network, sums, up, served)
		}
	}
}

// What gVisor cannot do is refused with words that help, and what it does not
// enforce is warned of.
func TestDockerSaysWhatItCannotDo(t *testing.T) {
	t.Parallel()
	sandbox := shared.createWithDocker(t, innerdock.SandboxSpec{})
	shared.sh(t, sandbox.ID, "docker run -d --name web nginx:latest")
	for command, says := range map[string]string{
		"docker pause web": "no freezer", "docker network create --ipv6 six": "leave out --ipv6",
		"docker network create -d macvlan -o parent=eth0 mac":                            "use the driver bridge",
		"docker network create -o com.docker.network.bridge.enable_icc=false apart":      "a network of its own",
		"docker create --cpus 1 nginx:latest":                                            "WARNING: Your kernel, gVisor's, does not enforce --cpus.",
		"curl -s --unix-socket /run/docker.sock -X POST http://d/containers/web/unpause": "no freezer",
	} {
		if got := shared.sh(t, sandbox.ID, command+" 2>&1 || true"); !strings.Contains(got, says) {
			t.Errorf("%s says %q, not %q", command, got, says)
		}
	}
	if got := shared.sh(t, sandbox.ID, "docker exec web echo alive; docker network ls -q | wc -l"); got != "alive\n3\n" {
		t.Errorf("afterwards: %q", got)
	}
}
