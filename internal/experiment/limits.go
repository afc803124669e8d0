package experiment

import (
	"encoding/json"
	"fmt"
)

// The limits of what is defined. Every server holds the current definition of every
// experiment in memory, and of the revisions that it has run with their terms, for
// exposures may come at any time later.
const (
	MaxDefinitionBytes = 256 << 10 // As it is stored, with the allocation.
	MaxPayloadValues   = 10_000    // In all payloads of an experiment: each takes some 150 bytes once it is served.
	MaxLiveRevisions   = 1000      // From the one on with which the experiment started.
	MaxTransitions     = 1000
	MaxHoldouts        = 100 // That have not ended, of one unit: an exposure may count in each.
)

// CheckStored refuses a definition that takes more bytes, as the JSON of its parts,
// than may be stored. One from before this limit may stay as large as it was.
func CheckStored(what string, parts, before []any) error {
	if bytes := storedBytes(parts); bytes > max(MaxDefinitionBytes, storedBytes(before)) {
		return tooLarge("%s would take %d bytes as stored, and may take %d: shorten its texts, lists and payloads", what, bytes, MaxDefinitionBytes)
	}
	return nil
}

func storedBytes(parts []any) int {
	bytes := 0
	for _, part := range parts {
		text, err := json.Marshal(part)
		if err != nil {
			panic(fmt.Sprintf("experiment: a definition without JSON form: %v", err)) // Its types all have one.
		}
		bytes += len(text)
	}
	return bytes
}

func tooLarge(format string, args ...any) error {
	return Errorf(ErrTooLarge, "DEFINITION_TOO_LARGE", format, args...)
}

// CheckSize refuses a revision that is too large. The one before it is nil for the
// first.
func (r *Revision) CheckSize(before *Revision) error {
	var had []any
	values := 0
	if before != nil {
		had, values = []any{&before.Definition, before.Allocation}, before.Definition.payloadValues()
	}
	if n := r.Definition.payloadValues(); n > max(MaxPayloadValues, values) {
		return tooLarge("the payloads of the experiment would hold %d values, and may hold %d in all", n, MaxPayloadValues)
	}
	return CheckStored("the experiment", []any{&r.Definition, r.Allocation}, had)
}

// payloadValues is the number of JSON values in the payloads, as one too many for
// each object and list that is empty.
func (d *Definition) payloadValues() int {
	n := 0
	for _, v := range d.Variants {
		n += valuesIn(v.Payload)
	}
	return n
}

// valuesIn counts what begins a value: a document, and in it each comma, object and
// list outside texts.
func valuesIn(document []byte) int {
	if len(document) == 0 {
		return 0
	}
	n, text := 1, false
	for i := 0; i < len(document); i++ {
		switch c := document[i]; {
		case c == '"':
			text = !text
		case text && c == '\\':
			i++
		case !text && (c == ',' || c == '{' || c == '['):
			n++
		}
	}
	return n
}

// CheckRevisions refuses a revision of an experiment that has as many as it may
// have since its start.
func CheckRevisions(key string, live int) error {
	if live < MaxLiveRevisions {
		return nil
	}
	return Errorf(ErrPrecondition, "TOO_MANY_REVISIONS",
		"the experiment %q has %d revisions since its start, and may have %d, as servers hold them for exposures that come late: put several changes into one update, or conclude it and go on with another experiment",
		key, live, MaxLiveRevisions)
}

// CheckTransitions refuses to resume an experiment that has as many changes of state
// as it may have. It can still be concluded.
func CheckTransitions(key string, transitions int) error {
	if transitions < MaxTransitions {
		return nil
	}
	return Errorf(ErrPrecondition, "TOO_MANY_TRANSITIONS",
		"the experiment %q has changed its state %d times, and may %d times before it cannot be resumed any more: conclude it", key, transitions, MaxTransitions)
}
