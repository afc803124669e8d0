package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestRunCommands(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		stdout string // A part of it.
		err    string
	}{
		{"nothing", nil, "", "no command given; 'assayd help' lists them"},
		{"an unknown command", []string{"sevre"}, "", `unknown command "sevre"; 'assayd help' lists them`},
		{"help", []string{"help"}, "  import    send the rows of a CSV file to a server\n", ""},
		{"help as a flag", []string{"--help"}, "  demo ", ""},
		{"help of a command", []string{"import", "--help"}, "-mapping", ""},
		{"a calibration", []string{"calibrate", "--experiments", "20", "--subjects", "100"}, "heavy-tailed mean with covariates\n", ""},
		{"too small a calibration", []string{"calibrate", "--experiments", "1"}, "", "calibrate: it takes 2 experiments and 100 subjects or more"},
		{"a lopsided calibration", []string{"calibrate", "--share", "1"}, "", "calibrate: the treatment's share lies between 0.01 and 0.99"},
		{"cells of a calibration", []string{"calibrate", "--runs", "20", "--cells", "rate/5 %, 1:1, 500"}, "| rate | 1 | ", ""},
		{"cells without runs", []string{"calibrate", "--cells", "rate"}, "", "calibrate: the long form takes --runs, of 1 or more"},
		{"cells that there are not", []string{"calibrate", "--runs", "20", "--cells", "none such"}, "", `calibrate: --cells: no cell is called like "none such"`},
		{"version", []string{"version"}, "assayd ", ""},
		{"an unknown flag", []string{"import", "--maping", "x"}, "", "import: flag provided but not defined: -maping"},
		{"a missing flag", []string{"import", "x.csv"}, "", "import: needs --mapping and one CSV file; see 'assayd import --help'"},
		{"a missing file", []string{"import", "--mapping", "testdata/none.yaml", "x.csv"}, "",
			"import: open testdata/none.yaml: no such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := run(t.Context(), tt.args, env{func(string) string { return "" }, &stdout, &stderr})
			if got := message(err); got != tt.err {
				t.Errorf("error %q, want %q", got, tt.err)
			}
			if !strings.Contains(stdout.String(), tt.stdout) || tt.stdout == "" && stdout.Len() > 0 {
				t.Errorf("stdout %q, want a part %q", stdout.String(), tt.stdout)
			}
			if stderr.Len() > 0 {
				t.Errorf("stderr %q: errors are printed once, by main", stderr.String())
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
