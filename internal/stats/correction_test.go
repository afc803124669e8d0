package stats

import (
	"fmt"
	"math"
	"testing"
)

// TestCorrections: R's p.adjust, absent p-values included.
func TestCorrections(t *testing.T) {
	var file struct {
		Corrections []struct{ P, Holm, Bonferroni, BH []*float64 }
	}
	load(t, "reference-r.json", &file)
	for i, c := range file.Corrections {
		for correction, want := range map[Correction][]*float64{
			NoCorrection: c.P, Holm: c.Holm, Bonferroni: c.Bonferroni, BenjaminiHochberg: c.BH,
		} {
			got, err := correction.Adjust(c.P)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(want) {
				t.Fatalf("%d p-values became %d", len(want), len(got))
			}
			for k := range want {
				nearOptional(t, fmt.Sprintf("set %d, correction %d, p-value %d", i, correction, k), got[k], want[k], 1e-14)
			}
		}
	}
}

func TestCorrectionRefuses(t *testing.T) {
	for _, p := range []float64{-0.1, 1.1, math.NaN(), math.Inf(1)} {
		if _, err := Holm.Adjust([]*float64{nil, &p}); err == nil {
			t.Errorf("%v was taken for a p-value", p)
		}
	}
	if _, err := Correction(9).Adjust(nil); err == nil {
		t.Error("an unknown correction was taken")
	}
	if got, err := Holm.Adjust(nil); err != nil || len(got) != 0 {
		t.Errorf("no p-values became %v, %v", got, err)
	}
}
