package enrollment

import "time"

const (
	// firstPause is that after a single failure. Most are a hiccup of some hundred
	// milliseconds, and each moment without storage answers somebody without
	// knowing.
	firstPause = 50 * time.Millisecond
	// longestPause is that while storage goes on failing: a try may cost it a
	// connection, and its caller MaxWait.
	longestPause = time.Second
)

// breaker says whether storage may be asked. It lets everybody through until a
// try fails. Then it lets one through after each pause, which doubles with each
// failure, until storage answers. It is not safe for concurrent use.
type breaker struct {
	pause   time.Duration // Zero while storage answers.
	retry   time.Time     // When the pause is over.
	probing bool          // The one that was let through is not back yet.
}

// admit says whether the caller may ask, and whether it is the one who probes.
func (b *breaker) admit(now time.Time) (admitted, probes bool) {
	switch {
	case b.pause == 0:
		return true, false
	case b.probing, now.Before(b.retry):
		return false, false
	}
	b.probing = true
	return true, true
}

func (b *breaker) succeed() { *b = breaker{} }

// fail takes note of a try that failed, by storage's own fault or not. Those that
// were under way when the first of them failed tell nothing new.
func (b *breaker) fail(now time.Time, probes, fault bool) {
	if probes {
		b.probing = false
	}
	if fault && (probes || b.pause == 0) {
		b.pause = min(max(2*b.pause, firstPause), longestPause)
		b.retry = now.Add(b.pause)
	}
}
