package cli

import (
	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock/pkg/server"
)

func (a *app) openapiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "openapi", Short: "Print the API's OpenAPI document", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			document, err := server.Document()
			if err != nil {
				return err
			}
			_, err = a.Stdout.Write(document)
			return err
		},
	}
}
