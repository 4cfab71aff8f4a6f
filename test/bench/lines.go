package main

import "context"

// drivers are the ways in which Docker keeps what a container prints. The first
// is what it does unless told otherwise.
var drivers = []string{"json-file", "local", "none"}

// lines measures a container that prints many short lines: of each, dockerd makes
// an entry of its log.
func (b *bench) lines(ctx context.Context) error {
	const (
		megabytes = 20
		sample    = "/tmp/lines" // of 80 bytes each
	)
	return b.with(ctx, func(places []*place) error {
		if err := b.share(ctx, places, "busybox"); err != nil {
			return err
		}
		for _, p := range places {
			if _, err := p.shell(ctx, "yes $(printf %079d 7) | head -c 20000000 >"+sample); err != nil {
				return err
			}
		}
		for range max(1, b.rounds/2) {
			for _, driver := range drivers {
				for _, p := range places {
					seconds, err := p.timed(ctx, "sh", "-ec", "docker run -i --rm --log-driver "+driver+" busybox cat <"+sample+" >/dev/null")
					if err != nil {
						return err
					}
					b.note("docker run -i, lines of 80 bytes, log "+driver, "MB/s", p.name, megabytes/seconds)
				}
			}
		}
		return nil
	})
}
