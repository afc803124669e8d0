package server

import (
	"testing"
	"time"
)

// SetAnalysisBytes sets what one analysis may hold in memory on servers that start from
// now on, until the end of the test.
func SetAnalysisBytes(t *testing.T, bytes int64) {
	was := defaultAnalysisBytes
	t.Cleanup(func() { defaultAnalysisBytes = was })
	defaultAnalysisBytes = bytes
}

// SetStreamLimits sets limits of streams on servers that start from now on, until the
// end of the test.
func SetStreamLimits(t *testing.T, set func(*StreamLimits)) {
	was := defaultStreamLimits
	t.Cleanup(func() { defaultStreamLimits = was })
	l := StreamLimits{was.recording, was.standing, was.acknowledgements, was.waiting, was.sending, was.rosterPause, was.idle}
	set(&l)
	defaultStreamLimits = streamLimits{l.Recording, l.Standing, l.Acknowledgements, l.Waiting, l.Sending, l.RosterPause, l.Idle}
}

type StreamLimits struct {
	Recording, Standing       int
	Acknowledgements, Waiting int64
	Sending, RosterPause      time.Duration
	Idle                      time.Duration
}
