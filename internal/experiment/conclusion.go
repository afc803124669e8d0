package experiment

// Conclusion is what is known of the decision that ended an experiment, beside
// the variant that it ships and the rationale.
type Conclusion struct {
	Author         string   `json:"author,omitempty"`      // As the caller named itself.
	AnalysisID     string   `json:"analysis_id,omitempty"` // Empty: it rests on none.
	Verdict        string   `json:"verdict,omitempty"`     // What that analysis said to do.
	VerdictVariant string   `json:"verdict_variant,omitempty"`
	Objections     []string `json:"objections,omitempty"` // How the decision goes against it, one sentence each.
}

// CheckShipped refuses to ship what is no variant. Empty is: nothing is shipped.
func (d *Definition) CheckShipped(variant string) error {
	if variant != "" && d.Variant(variant) < 0 {
		return Invalid("shipped_variant", "the experiment has no variant %q", variant)
	}
	return nil
}
