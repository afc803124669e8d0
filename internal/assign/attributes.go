package assign

// Attributes are what a caller knows of a subject. Predicates of a common shape
// read single values and others the whole, so that a caller that holds them in
// a form of its own need not convert what nothing reads.
type Attributes interface {
	// Attribute returns the value of the name.
	Attribute(name string) Value
	// All returns everything. The values are nil, bool, float64, string, []any
	// and map[string]any only. It may be called several times.
	All() map[string]any
}

// Value is one attribute as far as a comparison with a constant tells it apart.
// Values are equal, by ==, exactly where CEL calls them equal and one of them is
// a scalar.
type Value struct {
	Kind   ValueKind
	Bool   bool
	Number float64
	Text   string
}

// ValueKind says which field of a Value holds.
type ValueKind uint8

// The kinds of values.
const (
	ValueMissing ValueKind = iota // There is no such attribute.
	ValueNull
	ValueBool
	ValueNumber
	ValueText
	ValueOther // A list or a map.
)

// ValueOf returns the value of what All holds.
func ValueOf(x any) Value {
	switch x := x.(type) {
	case nil:
		return Value{Kind: ValueNull}
	case bool:
		return Value{Kind: ValueBool, Bool: x}
	case float64:
		return Value{Kind: ValueNumber, Number: x}
	case string:
		return Value{Kind: ValueText, Text: x}
	}
	return Value{Kind: ValueOther}
}

// attributeMap is attributes that are converted already.
type attributeMap map[string]any

func (m attributeMap) Attribute(name string) Value {
	if x, ok := m[name]; ok {
		return ValueOf(x)
	}
	return Value{}
}

func (m attributeMap) All() map[string]any { return m }
