package stats

import "testing"

// TestBalanceOfKnown: R's t.test and Austin's formula, among the subjects that have
// the covariate.
func TestBalanceOfKnown(t *testing.T) {
	var cases []struct {
		Name               string
		Treatment, Control []*float64
		SMD, P             float64
	}
	load(t, "balance.json", &cases)
	if len(cases) < 10 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, c := range cases {
		arms := []Arm{{[]Moments{withMissing(c.Control)}}, {[]Moments{withMissing(c.Treatment)}}}
		got := mustBalance(t, arms, 0, 0, 1)[0]
		nearOptional(t, c.Name, got.StandardizedDifference, &c.SMD, 1e-9)
		nearOptional(t, c.Name+" p", got.PValue, &c.P, 1e-9)
	}
}
