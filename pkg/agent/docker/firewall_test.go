package docker

import (
	"net/netip"
	"strings"
	"testing"
)

func TestInternalNetworks(t *testing.T) {
	const id = "0123456789abcdef"
	for _, c := range []struct {
		network bridgeNetwork
		want    string
	}{
		{bridgeNetwork{ID: id}, "br-0123456789ab"},
		{bridgeNetwork{ID: id, Options: map[string]string{"com.docker.network.bridge.name": "foo"}}, "foo"},
		{bridgeNetwork{ID: id, Options: map[string]string{"com.docker.network.bridge.name": "foo -j ACCEPT"}}, ""},
		{bridgeNetwork{ID: id, Options: map[string]string{"com.docker.network.bridge.name": "foo\nCOMMIT"}}, ""},
		{bridgeNetwork{ID: id, Options: map[string]string{"com.docker.network.bridge.name": "much-too-long-a-name"}}, ""},
		{bridgeNetwork{ID: "short"}, ""},
	} {
		if got := c.network.bridge(); got != c.want {
			t.Errorf("%+v: %q", c.network, got)
		}
	}
	want := "*filter\n:INNERDOCK-INTERNAL - [0:0]\n-A INNERDOCK-INTERNAL -i foo -j DROP\n-A INNERDOCK-INTERNAL -o foo -j DROP\nCOMMIT\n"
	if got := internalRules([]string{"foo"}); got != want {
		t.Errorf("rules %q", got)
	}
}

func TestRules(t *testing.T) {
	got := rules(netip.MustParseAddr("10.213.0.6"), protocols)
	for _, want := range []string{"*nat\n", "-o eth0 -p tcp -j SNAT --to-source 10.213.0.6\n", "-o eth0 -p udp -j SNAT --to-source 10.213.0.6\n", "-o eth0 -p icmp -j SNAT --to-source 10.213.0.6\n", ":FORWARD DROP [0:0]\n", "-A FORWARD -o eth0 -j ACCEPT\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("rules lack %q:\n%s", want, got)
		}
	}
}
