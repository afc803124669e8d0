package experiment

import (
	"errors"
	"fmt"
	"strings"
)

// The kinds of refusal. Every error that a caller may see wraps one of them or
// is an [InvalidError]; anything else is a fault of the service.
var (
	ErrNotFound      = errors.New("not found")
	ErrAlreadyExists = errors.New("already exists")
	ErrPrecondition  = errors.New("failed precondition")
	ErrAborted       = errors.New("aborted")
	ErrExhausted     = errors.New("resource exhausted")
	ErrUnavailable   = errors.New("unavailable")
	ErrDeadline      = errors.New("deadline exceeded")
	ErrTooLarge      = errors.New("too large") // Trying again does not help.
)

// Error is a refusal with a reason for machines and a sentence for people.
type Error struct {
	Kind    error  // One of the kinds above.
	Reason  string // UPPER_SNAKE_CASE, stable.
	Message string
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Errorf returns an Error of the given kind.
func Errorf(kind error, reason, format string, args ...any) error {
	return &Error{Kind: kind, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Violation is one field that breaks a rule.
type Violation struct {
	Field   string // Path from the object that was checked, in API spelling.
	Message string
}

// InvalidError names every field at fault.
type InvalidError struct {
	Violations []Violation
}

func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Violations))
	for i, v := range e.Violations {
		parts[i] = v.Field + ": " + v.Message
	}
	return strings.Join(parts, "; ")
}

// Invalid returns an InvalidError for one field.
func Invalid(field, format string, args ...any) error {
	return &InvalidError{Violations: []Violation{{field, fmt.Sprintf(format, args...)}}}
}

// Add notes one more field at fault.
func (e *InvalidError) Add(field, format string, args ...any) {
	e.Violations = append(e.Violations, Violation{field, fmt.Sprintf(format, args...)})
}

// Join adds the violations of err under a prefix, and returns any other error
// as it is. A nil err adds nothing.
func (e *InvalidError) Join(prefix string, err error) error {
	var inner *InvalidError
	if !errors.As(err, &inner) {
		return err
	}
	for _, v := range inner.Violations {
		switch {
		case prefix == "":
		case v.Field == "":
			v.Field = prefix
		default:
			v.Field = prefix + "." + v.Field
		}
		e.Violations = append(e.Violations, v)
	}
	return nil
}

// Err returns e if anything was added, else nil.
func (e *InvalidError) Err() error {
	if len(e.Violations) == 0 {
		return nil
	}
	return e
}
