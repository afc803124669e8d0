package postgres

import "testing"

// SetPage makes pages of histories as small as that until the test ends.
func SetPage(t *testing.T, experiments, bytes int) {
	e, b := pageExperiments, pageBytes
	pageExperiments, pageBytes = experiments, bytes
	t.Cleanup(func() { pageExperiments, pageBytes = e, b })
}
