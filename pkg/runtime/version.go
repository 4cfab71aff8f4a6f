package runtime

import (
	"regexp"
	"time"

	"github.com/innerdock/innerdock"
)

// floor is the first day whose gVisor does not let /dev/cuse of an image reach
// the host (CVE-2026-96812).
var floor = time.Date(2026, time.August, 17, 0, 0, 0, 0, time.UTC)

// dated finds the day in a release's label ("release-20260831.0") or in the
// version of a Go module ("v0.0.0-20260905035102-160fafc42237").
var dated = regexp.MustCompile(`^(?:release-(\d{8})(?:\.|$)|v\d+\.\d+\.\d+-(?:0\.)?(\d{8})\d{6}-[0-9a-f]{12}$)`)

// CheckVersion refuses a runsc whose version, as `runsc --version` prints it on
// its first line after "runsc version", is older than the floor or tells no
// date. The error is ErrVersion and names the fix.
func CheckVersion(version string) error {
	const fix = "build the pinned one with `make runsc` and start the server with it"
	match := dated.FindStringSubmatch(version)
	if match == nil {
		return innerdock.Errorf(innerdock.CodeUnsupported,
			"%w: runsc calls itself %q, which has no date, so nobody can tell whether it has the fix for CVE-2026-96812; %s", ErrVersion, version, fix)
	}
	day, err := time.Parse("20060102", match[1]+match[2])
	if err != nil {
		return innerdock.Errorf(innerdock.CodeUnsupported, "%w: runsc calls itself %q; %s", ErrVersion, version, fix)
	}
	if day.Before(floor) {
		return innerdock.Errorf(innerdock.CodeUnsupported,
			"%w: runsc %s is from before %s and lets an image reach devices of the host (CVE-2026-96812); %s",
			ErrVersion, version, floor.Format(time.DateOnly), fix)
	}
	return nil
}
