package docker

import "github.com/innerdock/innerdock"

// Default is the matrix's name for the version that Definition installs.
const Default = "26.1"

// Definition is an image with Docker as users ask for it.
var Definition = innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: []innerdock.ImageStep{{Docker: &innerdock.DockerInstall{}}}}

// Bookworm is an image with the Docker of Debian 12 itself.
var Bookworm = innerdock.ImageDefinition{PythonVersion: "python3.11", Steps: []innerdock.ImageStep{{Command: `set -e
apt-get -q update
apt-get -q -y --no-install-recommends install docker.io iptables procps xz-utils ca-certificates
apt-get clean
for tool in iptables ip6tables; do update-alternatives --set $tool /usr/sbin/$tool-legacy; done
ln -s /usr/sbin/dockerd /usr/sbin/docker-proxy /usr/bin/
`}}}
