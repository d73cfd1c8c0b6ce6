package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

func newSelfTest(s *shared) *cobra.Command {
	var controls, void []string
	c := s.ofNode(&cobra.Command{Use: "selftest [--control ID]", Short: "Attack the running listener and show that each control holds", Args: exactly(0),
		Long: "Runs the controls' self-tests against the live listener, and each against a sandbox with its control switched off, where it\n" +
			"must fail: a test that cannot fail is void. The traffic is marked and left out of every population.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := client.New(s.node)
			if err != nil {
				return err
			}
			var out struct {
				Results []api.SelfTestResult `json:"results"`
				Failed  int                  `json:"failed"`
				Void    int                  `json:"void"`
			}
			body := map[string]any{}
			if len(controls) > 0 {
				body["controls"] = controls
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "attacking …")
			if err := cl.Do(cmd.Context(), http.MethodPost, "/v1/selftests", nil, body, &out); err != nil {
				return err
			}
			if s.json {
				if err := printJSON(cmd.OutOrStdout(), out); err != nil {
					return err
				}
			} else {
				var rows [][]string
				var details []string
				for _, r := range out.Results {
					rows = append(rows, []string{r.Control, r.Outcome, controlOff(r.Sandbox), strconv.FormatInt(r.Milliseconds, 10) + " ms", strings.Join(r.Subcategories, ",")})
					details = append(details, r.Detail)
					if r.Outcome == "void" {
						void = append(void, r.Control)
					}
				}
				if err := printDetailed(cmd.OutOrStdout(), "no self-test", []string{"control", "outcome", "control off", "took", "csf"}, rows, details); err != nil {
					return err
				}
			}
			switch {
			case len(void) > 0:
				return fmt.Errorf("%d of %d self-tests did not pass, of these void, which prove nothing: %s", out.Failed, len(out.Results), strings.Join(void, ", "))
			case out.Failed > 0:
				return fmt.Errorf("%d of %d self-tests did not pass", out.Failed, len(out.Results))
			}
			return nil
		}})
	c.Flags().StringSliceVar(&controls, "control", nil, "only this control; may be given several times")
	return c
}

// controlOff says what a test did where its control is off. It must fail there.
func controlOff(outcome string) string {
	switch outcome {
	case "":
		return "no sandbox"
	case "failed":
		return "fails, as it must"
	case "passed":
		return "passes: void"
	}
	return outcome
}
