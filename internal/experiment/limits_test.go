package experiment

import "testing"

func TestValuesIn(t *testing.T) {
	for document, want := range map[string]int{
		``: 0, `{}`: 2, `{"a":1}`: 2, `{"a":1,"b":[1,2]}`: 5, `{"a":"{[,"}`: 2, `{"a\",[":"\\","b":null}`: 3,
	} {
		if got := valuesIn([]byte(document)); got != want {
			t.Errorf("%s has %d values, want %d", document, got, want)
		}
	}
}
