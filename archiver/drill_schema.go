package archiver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/pgstow/pgstow/dumper"
	"github.com/pgstow/pgstow/dumper/pgarchive"
)

// The definitions are compared as pg_dump writes them: those in the archive's table of
// contents with those of a schema-only dump of the copy by the same major version of pg_dump,
// in the same encoding; their order and their ids aside.
//
// Some definitions are not spelled the same after a restore: PostgreSQL has parsed them once
// more. CHECK (state IN ('a', 'b')) on a varchar column is the best known. Others are in a new
// database from the beginning, and then not in its dump: plpgsql, where pg_upgrade has made it
// anew at the source. What differs is therefore held against a second copy, of the definitions
// alone and in one run of pg_restore, made for that: what the archive's own definition becomes
// on this server is no difference.

// compareSchema compares the definitions of the copy.
func (c *comparison) compareSchema(ctx context.Context) error {
	tools, why, err := c.schemaTools(ctx)
	if err != nil {
		return err
	}
	if why != "" {
		c.schema, c.schemaReason = SchemaNotCompared, why
		c.plan.miss("definitions", why)
		return nil
	}
	found, err := c.definitionsOf(ctx, c.scratch.Conn, tools)
	if err != nil {
		return err
	}
	differences := c.archived().compare(found)
	if len(differences) > 0 {
		if differences, err = c.secondOpinion(ctx, tools, found, differences); err != nil {
			return err
		}
	}
	c.schema = SchemaEqual
	if len(differences) > 0 {
		c.schema = SchemaDiffers
	}
	for _, d := range differences {
		c.differs(d)
	}
	return nil
}

// schemaTools finds the archive's own major version of pg_dump.
func (c *comparison) schemaTools(ctx context.Context) (tools dumper.Tools, why string, err error) {
	major := dumper.MajorOf(c.head.DumpVersion)
	if major < c.scratch.ServerMajor {
		return tools, fmt.Sprintf("pg_dump %d, which made the archive, cannot dump the scratch server, PostgreSQL %d", major, c.scratch.ServerMajor), nil
	}
	found := c.tools
	if c.opts.PGBin != "" {
		usual, err := dumper.FindTools(ctx, "")
		if err != nil {
			return tools, "", err
		}
		found = append(slices.Clone(found), usual...)
	}
	tools, err = dumper.ChooseTools(slices.DeleteFunc(slices.Clone(found), func(t dumper.Tools) bool { return t.Major != major }), major)
	if err != nil {
		return tools, fmt.Sprintf("the archive was made by pg_dump %d, and none of that major version is installed here", major), nil
	}
	return tools, "", nil
}

// definitionsOf dumps the definitions of a database.
func (c *comparison) definitionsOf(ctx context.Context, conn dumper.Conn, tools dumper.Tools) (definitions, error) {
	dump, err := dumper.StartDump(ctx, conn, tools, dumper.DumpOptions{
		Args: dumper.SchemaDumpArgs(c.head, c.dumpArgs()), Log: c.log,
	})
	if err != nil {
		return nil, err
	}
	defer dump.Close()
	r := bufio.NewReaderSize(dump, 256<<10)
	head, err := pgarchive.ParseHead(r)
	if err == nil {
		_, err = io.Copy(io.Discard, r) // its end says that pg_dump has exited 0
	}
	if err != nil {
		return nil, fmt.Errorf("dump the definitions of the copy: %w", err)
	}
	all := make([]int, len(head.Entries))
	for i := range all {
		all[i] = i
	}
	return c.plan.definitions(head, all), nil
}

// archived are the definitions that were restored.
func (c *comparison) archived() definitions { return c.plan.definitions(c.head, c.plan.entries) }

// definitions are entries that define something, by what they are called. Several may
// have one name.
type definitions map[definitionName][]string

type definitionName struct{ desc, schema, tag string }

func (n definitionName) String() string {
	name := n.tag
	if n.schema != "" {
		name = n.schema + "." + name
	}
	return strings.ToLower(n.desc) + " " + name
}

func (p *drillPlan) definitions(head *pgarchive.Head, chosen []int) definitions {
	all := definitions{}
	for _, i := range chosen {
		e := &head.Entries[i]
		if !p.defines(e) {
			continue
		}
		text := []string{attributeVersion.ReplaceAllString(e.Defn.S, ""), e.DropStmt.S, e.TableAM.S}
		if !p.noOwners {
			text = append(text, "owner "+e.Owner.S)
		}
		if !p.noTablespaces {
			text = append(text, "tablespace "+e.Tablespace.S)
		}
		n := definitionName{e.Desc.S, e.Namespace.S, e.Tag.S}
		all[n] = append(all[n], strings.Join(text, "\x00"))
	}
	for _, list := range all {
		slices.Sort(list)
	}
	return all
}

// attributeVersion is a number that 17.12 gives each column anew, in its options; a pg_dump of
// another major version that does not know it takes it for a part of the definition.
var attributeVersion = regexp.MustCompile(`(?m)^ALTER [A-Z ]+ .* ALTER COLUMN .* SET \(pg_attver='?\d+'?\);\n`)

// defines tells the entries that a schema-only dump of the copy must have as well.
func (p *drillPlan) defines(e *pgarchive.Entry) bool {
	if e.HadDumper {
		return false
	}
	switch e.Desc.S {
	case "ENCODING", "STDSTRINGS", "SEARCHPATH", // of every dump
		"DATABASE", "DATABASE PROPERTIES", // the copy has a name of its own
		"SEQUENCE SET", "BLOB", "BLOB METADATA", "MATERIALIZED VIEW DATA", "STATISTICS DATA", // content
		"SUBSCRIPTION":
		return false
	case "ACL", "DEFAULT ACL":
		if p.noOwners {
			return false
		}
	case "SCHEMA":
		// It is there in every database, and dumped where its owner is another.
		if p.noOwners && e.Tag.S == "public" {
			return false
		}
	}
	switch e.Desc.S {
	case "COMMENT", "ACL", "SECURITY LABEL":
		for _, of := range []string{"DATABASE ", "LARGE OBJECT", "SUBSCRIPTION "} {
			if strings.HasPrefix(e.Tag.S, of) {
				return false
			}
		}
	}
	return true
}

// compare lists what found has otherwise.
func (want definitions) compare(found definitions) []DrillDifference {
	var all []DrillDifference
	note := func(n definitionName, what string) {
		all = append(all, DrillDifference{Kind: DiffSchema, Name: n.String(), What: what})
	}
	for n, list := range want {
		switch there := found[n]; {
		case len(there) == 0:
			note(n, "it is not there")
		case !slices.Equal(list, there):
			note(n, "it is defined otherwise")
		}
	}
	for n := range found {
		if len(want[n]) == 0 {
			note(n, "it is there, and not in the archive")
		}
	}
	return all
}

// secondOpinion restores the definitions alone into another scratch database and lets the
// differences stand that are none there.
func (c *comparison) secondOpinion(ctx context.Context, tools dumper.Tools, found definitions, differences []DrillDifference) (_ []DrillDifference, err error) {
	s, err := dumper.OpenScratch(ctx, c.server, dumper.ScratchOptions{
		Name: c.scratchName(), Head: c.head, Log: c.log,
		Purpose: "definitions of archive " + c.restore.res.Manifest.ID + ", to be dropped",
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if removal := s.Drop(ctx); removal != nil {
			err = errors.Join(err, &LeftDatabaseError{Err: err, Database: s.Name, Command: s.DropCommand(), Removal: removal})
		}
	}()
	if err := c.restoreDefinitions(ctx, s.Conn); err != nil {
		return nil, err
	}
	again, err := c.definitionsOf(ctx, s.Conn, tools)
	if err != nil {
		return nil, err
	}
	real := map[string]bool{}
	for _, d := range again.compare(found) {
		real[d.Name] = true
	}
	n := len(differences)
	differences = slices.DeleteFunc(differences, func(d DrillDifference) bool { return !real[d.Name] })
	if n -= len(differences); n > 0 {
		c.schemaReason = fmt.Sprintf("%s read otherwise after any restore on this server, as a second one of the definitions alone has shown", countedNoun(n, "definition"))
	}
	return differences, nil
}

// restoreDefinitions restores what defines something, in one run.
func (c *comparison) restoreDefinitions(ctx context.Context, conn dumper.Conn) error {
	var chosen []int
	for _, i := range c.plan.entries {
		if e := &c.head.Entries[i]; c.plan.defines(e) || (e.Desc.S == "ACL" || e.Desc.S == "DEFAULT ACL" || e.Desc.S == "SCHEMA") {
			chosen = append(chosen, i)
		}
	}
	tools, err := chooseRestoreTools(c.tools, c.scratch.ServerMajor, c.head.Version)
	if err != nil {
		return err
	}
	restorer, err := dumper.OpenRestorer(ctx, conn, tools, c.plan.restoreOptions(c.log))
	if err != nil {
		return err
	}
	archive, err := c.head.Synthesise(chosen).Archive()
	if err != nil {
		return err
	}
	if _, err := restorer.Run(ctx, archive); err != nil {
		return fmt.Errorf("restore the definitions once more: %w", err)
	}
	return nil
}
