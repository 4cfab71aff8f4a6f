package dockerinstall

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/innerdock/innerdock"
)

// nowhere is a mirror that refuses connections.
const nowhere = "DOCKER_CE_URL=http://127.0.0.1:1"

// ceSite is a site with a base archive and Docker's repository for it.
func ceSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.archive("base", "bookworm", "main", commonPackages())
	s.archive("linux/debian", "bookworm", "stable", cePackages())
	s.write("linux/debian/gpg", s.key())
	return s
}

func TestDockerCE(t *testing.T) {
	s := ceSite(t)
	for _, source := range []innerdock.DockerSource{innerdock.DockerSourceAuto, innerdock.DockerSourceCE, ""} {
		t.Run("source "+string(source), func(t *testing.T) {
			r := newRoot(t)
			r.be("debian", "bookworm", s)
			r.env = []string{"DOCKER_CE_URL=" + s.server.URL + "/"}
			output := r.mustInstall(source)
			for _, want := range []string{"innerdock: installing Docker from " + s.server.URL, "Docker version 99.1", "Docker Compose version v99.1", "buildx 99.1", "(legacy)"} {
				if !strings.Contains(output, want) {
					t.Errorf("it does not say %q:\n%s", want, output)
				}
			}
			if sources, _ := r.sh("cat /etc/apt/sources.list.d/docker.list"); !strings.Contains(sources, "signed-by=/etc/apt/keyrings/docker.asc] "+s.server.URL+"/linux/debian bookworm stable") {
				t.Errorf("docker.list: %s", sources)
			}
			r.env = []string{nowhere}
			began := time.Now()
			if output := r.mustInstall(source); !strings.Contains(output, "already installed") {
				t.Errorf("the second time:\n%s", output)
			}
			t.Logf("the second time took %.1f s", time.Since(began).Seconds())
		})
	}
}

func TestAWrongSigningKeyIsRefused(t *testing.T) {
	s := ceSite(t)
	other := &site{t: t, home: newKey(t)}
	s.write("linux/debian/gpg", other.key())
	for _, source := range []innerdock.DockerSource{innerdock.DockerSourceAuto, innerdock.DockerSourceCE} {
		r := newRoot(t)
		r.be("debian", "bookworm", s)
		r.env = []string{"DOCKER_CE_URL=" + s.server.URL}
		r.mustFail(source, "apt does not accept the repository", "nothing was installed from it")
	}
}

func TestAChangedPackageIsRefused(t *testing.T) {
	s := ceSite(t)
	s.write("linux/debian/pool/docker-ce_bookworm.deb", []byte("not what the index promises"))
	r := newRoot(t)
	r.be("debian", "bookworm", s)
	r.env = []string{"DOCKER_CE_URL=" + s.server.URL}
	output, code := r.install(innerdock.DockerSourceCE)
	if code == 0 || !strings.Contains(output, "apt could not install docker-ce") {
		t.Errorf("exit code %d:\n%s", code, output)
	}
}

func TestDockerCEFailures(t *testing.T) {
	s := ceSite(t)
	page := newSite(t)
	page.archive("base", "bookworm", "main", commonPackages())
	page.archive("linux/debian", "bookworm", "stable", cePackages())
	page.write("linux/debian/gpg", []byte("<html>Please log in</html>"))
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)
	tests := []struct {
		name, id, codename, env string
		source                  innerdock.DockerSource
		words                   []string
	}{
		{"not reachable", "debian", "bookworm", nowhere, innerdock.DockerSourceCE, []string{"cannot be reached", `with_docker(source="distro")`, "DOCKER_CE_URL"}},
		{"no such release", "debian", "hamm", "DOCKER_CE_URL=" + s.server.URL, innerdock.DockerSourceCE, []string{"has no release hamm for debian"}},
		{"not a key", "debian", "bookworm", "DOCKER_CE_URL=" + page.server.URL, innerdock.DockerSourceAuto, []string{"is not a signing key"}},
		{"alpine", "alpine", "", nowhere, innerdock.DockerSourceAuto, []string{"cannot install Docker on Test alpine", "Debian and Ubuntu", "docker:dind"}},
		{"no such source", "debian", "bookworm", nowhere, "it's; mine", []string{"unknown source of Docker: it's; mine"}},
		{"no plugins", "ubuntu", "focal", nowhere, innerdock.DockerSourceAuto, []string{"Ubuntu 22.04 or later"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			archive := newSite(t)
			packages := commonPackages()
			if test.codename == "focal" {
				packages = append(packages, pkg{name: "docker.io", version: "20"})
			}
			archive.archive("base", test.codename, "main", packages)
			r := newRoot(t)
			r.be(test.id, test.codename, archive)
			r.env = []string{test.env}
			r.mustFail(test.source, test.words...)
		})
	}
	t.Run("a silent mirror costs auto a few seconds", func(t *testing.T) {
		archive := newSite(t)
		archive.archive("base", "trixie", "main", append(commonPackages(), distroPackages("docker-compose", true)...))
		r := newRoot(t)
		r.be("debian", "trixie", archive)
		r.env = []string{"DOCKER_CE_URL=" + silent.URL}
		began := time.Now()
		r.mustInstall(innerdock.DockerSourceAuto)
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestTheDistributionsOwnPackages(t *testing.T) {
	tests := []struct {
		id, codename string
		packages     []pkg
	}{
		{"debian", "trixie", distroPackages("docker-compose", true)},
		{"ubuntu", "noble", distroPackages("docker-compose-v2", false)},
	}
	for _, test := range tests {
		t.Run(test.id, func(t *testing.T) {
			s := newSite(t)
			s.archive("base", test.codename, "main", append(commonPackages(), test.packages...))
			r := newRoot(t)
			r.be(test.id, test.codename, s)
			r.env = []string{nowhere}
			output := r.mustInstall(innerdock.DockerSourceAuto)
			if !strings.Contains(output, "does not answer for "+test.id+" "+test.codename) || !strings.Contains(output, "build distro") {
				t.Errorf("it says:\n%s", output)
			}
		})
	}
}

// TestDebianBookworm installs for real, from the mirror that the base was made
// from: Docker of trixie, and not one package of bookworm replaced.
func TestDebianBookworm(t *testing.T) {
	r := newRoot(t)
	r.env = []string{nowhere}
	const packages = `dpkg-query -W -f '${Package} ${Version}\n'`
	before, _ := r.sh(packages)
	began := time.Now()
	output := r.mustInstall(innerdock.DockerSourceAuto)
	t.Logf("installed in %.1f s", time.Since(began).Seconds())
	after, _ := r.sh(packages)
	for line := range strings.Lines(before) {
		if !strings.Contains(after, line) {
			t.Errorf("%s was replaced or removed", strings.TrimSpace(line))
		}
	}
	if python, code := r.sh(`python3.11 -c 'import ssl, sqlite3, hashlib; print("fine")'`); code != 0 || python != "fine\n" {
		t.Errorf("Python: %s", python)
	}
	if left, _ := r.sh("ls /etc/apt/sources.list.d /etc/apt/preferences.d; cat /etc/apt/sources.list"); strings.Contains(left, "trixie") || strings.Contains(left, "innerdock") {
		t.Errorf("its sources were left:\n%s", left)
	}
	if !strings.Contains(output, "from Debian trixie") {
		t.Errorf("it says:\n%s", output)
	}
	// What the user installs next comes from bookworm as before.
	if plan, code := r.sh("apt-get update -qq && apt-get install -s --no-install-recommends gcc libc6-dev | grep -c ^Inst"); code != 0 {
		t.Errorf("packages of bookworm do not install any more:\n%s", plan)
	}
}

func TestScriptKeepsTheListsThatAUserRead(t *testing.T) {
	s := ceSite(t)
	r := newRoot(t)
	r.be("debian", "bookworm", s)
	r.env = []string{"DOCKER_CE_URL=" + s.server.URL}
	output, code := r.sh("apt-get update -qq && sh -c \"$(cat <<'SCRIPT'\n" + Script("docker-ce") + "\nSCRIPT\n)\" && ls /var/lib/apt/lists")
	if code != 0 || !strings.Contains(output, "_base_dists_bookworm_main_") {
		t.Errorf("exit code %d:\n%s", code, output)
	}
}
