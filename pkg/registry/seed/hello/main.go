// Hello is the program in the hello-world image that innerdock brings along for
// sandboxes without a way to Docker Hub.
package main

import "os"

const text = `Hello from Docker!
This message comes out of a container, so everything on the way to it works:

 1. The docker command asked the Docker daemon of this sandbox to run an image
    named hello-world.
 2. The daemon looked for the image, and pulled it through innerdock's cache if
    it was not there yet.
 3. The daemon made a container from the image and started the one program in
    it, which is writing this.
 4. The daemon passed the output on to the docker command, and it to you.

All of it happened inside a gVisor sandbox: no container of the host was made,
and the host's Docker, if there is one, was not asked. Something larger to try:

    docker run --rm busybox uname -a

`

func main() {
	if _, err := os.Stdout.WriteString(text); err != nil {
		os.Exit(1)
	}
}
