package server

import "testing"

// SetAnalysisBytes sets what one analysis may hold in memory on servers that start from
// now on, until the end of the test.
func SetAnalysisBytes(t *testing.T, bytes int64) {
	was := defaultAnalysisBytes
	t.Cleanup(func() { defaultAnalysisBytes = was })
	defaultAnalysisBytes = bytes
}
