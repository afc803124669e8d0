package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// converter makes exposures and outcomes of the rows of one file.
type converter struct {
	width    int
	exposure func(r row) (*assayv1.Exposure, error) // Nil if none is mapped.
	outcomes []func(r row) (*assayv1.Outcome, error)
}

// compile resolves the mapping against a file's header. The error names
// everything that is wrong, such as a column that the file does not have.
func (m *mapping) compile(header []string) (*converter, error) {
	c := newColumns(header, m.Maps)
	subject := c.subject(m)
	conv := &converter{width: len(header)}
	if m.Exposure != nil {
		conv.exposure = c.exposure(m.Exposure, subject)
	}
	for i := range m.Outcomes {
		conv.outcomes = append(conv.outcomes, c.outcome(fmt.Sprintf("outcomes[%d]", i), &m.Outcomes[i], subject))
	}
	return conv, c.faults.err()
}

// convert makes what the mapping asks for of a row. An error means that
// nothing of the row can be used: half a row would count a subject without what
// it did.
func (c *converter) convert(r row) (*assayv1.Exposure, []*assayv1.Outcome, error) {
	if len(r.fields) != c.width {
		return nil, nil, fmt.Errorf("has %d fields, the header has %d", len(r.fields), c.width)
	}
	for _, field := range r.fields {
		if !utf8.ValidString(field) {
			return nil, nil, fmt.Errorf("%q is not UTF-8", field)
		}
	}
	var exposure *assayv1.Exposure
	var err error
	if c.exposure != nil {
		if exposure, err = c.exposure(r); err != nil {
			return nil, nil, err
		}
	}
	var outcomes []*assayv1.Outcome
	for _, outcome := range c.outcomes {
		o, err := outcome(r)
		if err != nil {
			return nil, nil, err
		}
		if o != nil {
			outcomes = append(outcomes, o)
		}
	}
	return exposure, outcomes, nil
}

func (c *columns) subject(m *mapping) func(r row) (*assayv1.Subject, error) {
	unit := c.template("subject.unit", m.Subject.Unit)
	key := c.required("subject.key", m.Subject.Key)
	return func(r row) (s *assayv1.Subject, err error) {
		s = &assayv1.Subject{}
		if s.Unit, err = unit(r); err != nil {
			return nil, err
		}
		s.Key, err = key(r)
		return s, err
	}
}

func (c *columns) exposure(m *exposureMapping, subject func(r row) (*assayv1.Subject, error)) func(r row) (*assayv1.Exposure, error) {
	experiment := c.required("exposure.experiment", m.Experiment)
	variant := c.required("exposure.variant", m.Variant)
	when := c.condition("exposure.when", m.When)
	moment := c.moment("exposure.time", m.Time, m.TimeLayout)
	attributes := c.values("exposure.attributes", m.Attributes)
	return func(r row) (*assayv1.Exposure, error) {
		if !when(r) {
			return nil, nil
		}
		e := &assayv1.Exposure{}
		var errs [5]error
		e.Subject, errs[0] = subject(r)
		e.Experiment, errs[1] = experiment(r)
		e.Variant, errs[2] = variant(r)
		e.ExposedTime, errs[3] = moment(r)
		if e.Subject != nil {
			e.Subject.Attributes, errs[4] = attributes(r)
		}
		return e, firstError(errs[:])
	}
}

func (c *columns) outcome(field string, m *outcomeMapping, subject func(r row) (*assayv1.Subject, error)) func(r row) (*assayv1.Outcome, error) {
	name := c.required(field+".name", m.Name)
	eventID := c.required(field+".event_id", m.EventID)
	value := c.template(field+".value", m.Value)
	when := c.condition(field+".when", m.When)
	moment := c.moment(field+".time", m.Time, m.TimeLayout)
	properties := c.values(field+".properties", m.Properties)
	return func(r row) (*assayv1.Outcome, error) {
		if !when(r) {
			return nil, nil
		}
		o := &assayv1.Outcome{}
		var errs [6]error
		o.Subject, errs[0] = subject(r)
		o.Name, errs[1] = name(r)
		o.EventId, errs[2] = eventID(r)
		o.Value, errs[3] = number(r, field+".value", value)
		o.OccurredTime, errs[4] = moment(r)
		o.Properties, errs[5] = properties(r)
		return o, firstError(errs[:])
	}
}

func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// number is the template's number, or nil if it is empty.
func number(r row, field string, template text) (*float64, error) {
	s, err := template(r)
	if err != nil || s == "" {
		return nil, err
	}
	x, err := parseNumber(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return &x, nil
}

func parseNumber(s string) (float64, error) {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return x, nil
}

// values compiles attributes or properties. Without any the struct is nil.
func (c *columns) values(field string, m map[string]valueMapping) func(r row) (*structpb.Struct, error) {
	type value struct {
		name, field string
		text        text
		parse       func(s string) (*structpb.Value, error)
	}
	var values []value
	for _, name := range sortedKeys(m) {
		v := value{name: name, field: field + "." + name}
		v.text = c.template(v.field, m[name].Value)
		if v.parse = parsers[m[name].Type]; v.parse == nil {
			c.faults.add(v.field, "type %q is none of string, number and bool", m[name].Type)
		}
		values = append(values, v)
	}
	return func(r row) (*structpb.Struct, error) {
		fields := map[string]*structpb.Value{}
		for _, v := range values {
			s, err := v.text(r)
			if err != nil {
				return nil, err
			}
			if s == "" {
				continue
			}
			if fields[v.name], err = v.parse(s); err != nil {
				return nil, fmt.Errorf("%s: %w", v.field, err)
			}
		}
		if len(fields) == 0 {
			return nil, nil
		}
		return &structpb.Struct{Fields: fields}, nil
	}
}

// parsers turn the text of a value into the value, by type.
var parsers = map[string]func(s string) (*structpb.Value, error){
	"":       parseString,
	"string": parseString,
	"number": func(s string) (*structpb.Value, error) {
		x, err := parseNumber(s)
		return structpb.NewNumberValue(x), err
	},
	"bool": func(s string) (*structpb.Value, error) {
		b, err := strconv.ParseBool(s)
		if err != nil {
			err = fmt.Errorf("%q is neither true nor false", s)
		}
		return structpb.NewBoolValue(b), err
	},
}

func parseString(s string) (*structpb.Value, error) { return structpb.NewStringValue(s), nil }

// layoutUnixMilli is the layout of times in milliseconds since 1970; other
// layouts are Go's.
const layoutUnixMilli = "unix_ms"

// moment compiles a time. Without a layout it is RFC 3339 or seconds since
// 1970. A time without a zone is in UTC.
func (c *columns) moment(field, template, layout string) func(r row) (*timestamppb.Timestamp, error) {
	if layout != "" && layout != layoutUnixMilli && !tells(layout) {
		c.faults.add(field+"_layout", "%q holds nothing of Go's reference time, 2006-01-02 15:04:05", layout)
	}
	if !strings.Contains(template, "{") && template != "" {
		if _, err := parseTime(template, layout); err != nil {
			c.faults.add(field, "%v", err) // Better said once than for every row.
		}
	}
	stamp := c.required(field, template)
	return func(r row) (*timestamppb.Timestamp, error) {
		s, err := stamp(r)
		if err != nil {
			return nil, err
		}
		t, err := parseTime(s, layout)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return timestamppb.New(t), nil
	}
}

// tells says whether times that differ look different in a layout.
func tells(layout string) bool {
	a := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	b := time.Date(2022, 11, 12, 13, 14, 15, 16e7, time.UTC)
	return a.Format(layout) != b.Format(layout)
}

func parseTime(s, layout string) (time.Time, error) {
	switch layout {
	case "":
		if t, err := time.Parse(time.RFC3339, s); err == nil {
			return checkTime(t, s)
		}
		if t, err := parseUnix(s, time.Second); err == nil {
			return checkTime(t, s)
		}
		return time.Time{}, fmt.Errorf("%q is neither a time as in RFC 3339 nor in seconds since 1970", s)
	case layoutUnixMilli:
		t, err := parseUnix(s, time.Millisecond)
		if err != nil {
			return time.Time{}, fmt.Errorf("%q is not a time in milliseconds since 1970", s)
		}
		return checkTime(t, s)
	default:
		t, err := time.Parse(layout, s)
		if err != nil {
			return time.Time{}, fmt.Errorf("%q is not a time like %q", s, layout)
		}
		return checkTime(t, s)
	}
}

// parseUnix reads a decimal number of units since 1970, exactly to the
// nanosecond.
func parseUnix(s string, unit time.Duration) (time.Time, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/1000 {
		return time.Time{}, errors.New("not a number of units since 1970")
	}
	nanos := int64(0)
	if fraction != "" {
		digits := (fraction + "000000000")[:9]
		parsed, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || strings.Trim(fraction, "0123456789") != "" {
			return time.Time{}, errors.New("not a number of units since 1970")
		}
		nanos = int64(parsed) * int64(unit) / int64(time.Second)
	}
	if unit == time.Millisecond {
		return time.UnixMilli(n).Add(time.Duration(nanos)).UTC(), nil
	}
	return time.Unix(n, nanos).UTC(), nil
}

// checkTime refuses what a protobuf timestamp cannot hold, such as the year
// that milliseconds make when they are read as seconds.
func checkTime(t time.Time, s string) (time.Time, error) {
	if !timestamppb.New(t).IsValid() {
		return time.Time{}, fmt.Errorf("%q is not between the years 1 and 9999", s)
	}
	return t, nil
}
