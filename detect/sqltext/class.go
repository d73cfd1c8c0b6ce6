package sqltext

import (
	"fmt"
	"strings"
)

// Classes is a set of statement classes, one bit each: what statements.deny of an identity names.
type Classes uint32

// The classes.
const (
	ClassDDL Classes = 1 << iota
	ClassDCL
	ClassCodeInstall
	ClassCopyOut
	ClassCopyIn
	ClassServerFile
	ClassDynamicSQL
	ClassRoleSwitch
	ClassWrite
	ClassMultiStatement
	ClassMaintenance
	ClassSet
)

// Class declares one statement class: a text belongs to it when it has one of the kinds or one of the flags.
type Class struct {
	Class Classes
	// Name is the configuration's word.
	Name string
	// Doc is one line for documents and error texts.
	Doc   string
	Kinds KindMask
	Flags Flags
}

func kinds(ks ...Kind) (s KindMask) {
	for _, k := range ks {
		s = s.With(k)
	}
	return s
}

var classTable = []Class{
	{ClassDDL, "ddl", "CREATE, ALTER, DROP, COMMENT and SELECT INTO", kinds(KindDDL), FlagSchemaChange},
	{ClassDCL, "dcl", "GRANT, REVOKE, roles, default and owned privileges", kinds(KindDCL), 0},
	{ClassCodeInstall, "code-install", "extensions, LOAD, untrusted languages, shared objects, ALTER SYSTEM, COPY PROGRAM", kinds(KindLoad), FlagCodeInstall | FlagServerProgram},
	{ClassCopyOut, "copy-out", "COPY … TO, whatever the other end is", kinds(KindCopyOut), FlagCopyOut},
	{ClassCopyIn, "copy-in", "COPY … FROM, whatever the other end is", kinds(KindCopyIn), FlagCopyIn},
	{ClassServerFile, "server-file", "files and programs of the server: COPY, pg_read_file, lo_import and their like", kinds(KindCopyFile, KindCopyProgram), FlagServerFile | FlagServerProgram},
	{ClassDynamicSQL, "dynamic-sql", "DO and functions that run SQL given as data", kinds(KindDo), FlagDynamicSQL},
	{ClassRoleSwitch, "role-switch", "SET ROLE and SET SESSION AUTHORIZATION in every spelling", 0, FlagRoleSwitch},
	{ClassWrite, "write", "INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY FROM and writes hidden in reads", kinds(KindInsert, KindUpdate, KindDelete, KindMerge, KindTruncate, KindCopyIn), FlagWrites},
	{ClassMultiStatement, "multi-statement", "more than one statement in a text", 0, FlagStacked},
	{ClassMaintenance, "maintenance", "VACUUM, ANALYZE, CLUSTER, REINDEX, CHECKPOINT, REFRESH", kinds(KindVacuum, KindMaintenance), 0},
	{ClassSet, "set", "SET, RESET and set_config; SET TRANSACTION is not in it", kinds(KindSet), FlagSetting},
}

// ClassTable lists the classes in the order of their documentation.
func ClassTable() []Class { return append([]Class(nil), classTable...) }

// ParseClasses makes the set of the names. The error of an unknown name lists the known ones.
func ParseClasses(names []string) (Classes, error) {
	var set Classes
next:
	for _, n := range names {
		for _, c := range classTable {
			if c.Name == n {
				set |= c.Class
				continue next
			}
		}
		known := make([]string, len(classTable))
		for i, c := range classTable {
			known[i] = c.Name
		}
		return 0, fmt.Errorf("unknown statement class %q: use one of %s", n, strings.Join(known, ", "))
	}
	return set, nil
}

// Names lists the classes of the set.
func (c Classes) Names() []string {
	var names []string
	for _, e := range classTable {
		if c&e.Class != 0 {
			names = append(names, e.Name)
		}
	}
	return names
}

// ClassesOf gives the classes that the kinds and flags belong to.
func ClassesOf(k KindMask, f Flags) Classes {
	var set Classes
	for i := range classTable {
		if e := &classTable[i]; e.Kinds&k != 0 || e.Flags&f != 0 {
			set |= e.Class
		}
	}
	return set
}
