package cli

import (
	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the versions of this program and of the server", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			versions := struct {
				Client string                 `json:"client"`
				Server *innerdock.VersionInfo `json:"server,omitempty"`
				Error  *innerdock.Error       `json:"error,omitempty"`
			}{Client: Version}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			server, err := c.Version(cmd.Context())
			if err == nil {
				versions.Server = &server
			} else {
				versions.Error = &innerdock.Error{Code: innerdock.CodeOf(err), Message: err.Error()}
			}
			return a.show(versions, []string{Version}, func() table {
				var t table
				t.add("Client", Version)
				if err != nil {
					t.add("Server", err.Error())
					return t
				}
				t.add("Server", server.Version)
				t.add("runsc", orDash(server.Runsc))
				t.add("API", server.API)
				return t
			})
		},
	}
}
