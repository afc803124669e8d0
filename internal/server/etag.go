package server

import (
	"strconv"

	"github.com/assayhq/assay/internal/experiment"
)

// formatEtag and parseEtag convert a version. 0 stands for no etag.
func formatEtag(version int64) string { return strconv.FormatInt(version, 36) }

func parseEtag(field, etag string) (int64, error) {
	if etag == "" {
		return 0, nil
	}
	version, err := strconv.ParseInt(etag, 36, 64)
	if err != nil || version <= 0 {
		return 0, experiment.Invalid(field, "is not an etag of this service")
	}
	return version, nil
}

// checkUpdate checks what an update needs whatever it changes.
func checkUpdate(field, key, etag string) (int64, error) {
	if !experiment.ValidKey(key) {
		return 0, experiment.Invalid(field+".key", "must name the %s to change", field)
	}
	return parseEtag(field+".etag", etag)
}
