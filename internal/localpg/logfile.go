package localpg

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// maxLog is how long the log may get before it becomes the old one. Left alone,
// Postgres writes some kilobytes a day; this holds a bad month, and twice it is
// little beside the cluster.
const maxLog = 10 << 20

// openLog opens the log, which the server programs append to.
func (c *Cluster) openLog() (err error) {
	if c.log, err = c.held.open(logName, os.O_RDWR|os.O_CREATE|os.O_APPEND); err != nil {
		return err
	}
	c.boundLog(maxLog)
	info, err := c.log.Stat()
	if err != nil {
		return err
	}
	c.logStart.Store(info.Size())
	return nil
}

// boundLog makes a log of more than most bytes the old one, in place of the
// last. A running server keeps its open file, so that what is in it is copied,
// and then cut off; a line of that moment may be lost. Where it cannot be
// copied, it stays and is tried again.
func (c *Cluster) boundLog(most int64) {
	info, err := c.log.Stat()
	if err != nil || info.Size() <= most {
		return
	}
	old, err := c.held.open(oldLogName, os.O_WRONLY|os.O_CREATE)
	if err != nil {
		return
	}
	defer old.Close()
	if old.Truncate(0) != nil {
		return
	}
	if _, err := io.Copy(old, io.NewSectionReader(c.log, 0, info.Size())); err != nil {
		_ = old.Truncate(0) // The disk may be full.
		return
	}
	if c.log.Truncate(0) == nil {
		c.logStart.Store(0)
	}
}

// logTail quotes the end of what was logged since this start, for an error.
func (c *Cluster) logTail() string {
	const most = 1500
	info, err := c.log.Stat()
	if err != nil {
		return ""
	}
	b := make([]byte, min(max(info.Size()-c.logStart.Load(), 0), most))
	if _, err := c.log.ReadAt(b, info.Size()-int64(len(b))); err != nil || len(b) == 0 {
		return ""
	}
	return fmt.Sprintf("; the end of %s:\n%s", c.log.Name(), strings.TrimSpace(string(b)))
}
