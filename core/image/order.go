package image

import "fmt"

// Section is the part of an image in which a record stands. Sections follow
// each other in the order of their constants; those from InTask to InCPU
// repeat for each task, and the last two of these for each of its threads.
type Section uint8

const (
	Anywhere  Section = iota // in any section from the head on
	InHead                   // about the image and its machine
	InTree                   // about all tasks
	InTask                   // per task: the task itself
	InMM                     // per task: memory
	InFiles                  // per task: descriptors
	InThread                 // per thread: what the kernel keeps for it
	InCPU                    // per thread: registers
	InTail                   // the end
	nSections = iota
)

var sectionNames = [nSections]string{"anywhere", "head", "tree", "task", "mm", "files", "thread", "cpu", "tail"}

// String returns the name that the documentation uses.
func (s Section) String() string {
	if int(s) < len(sectionNames) {
		return sectionNames[s]
	}
	return fmt.Sprintf("section %d", uint8(s))
}

// Occurs is how often a record stands in an image.
type Occurs uint8

const (
	Many                Occurs = iota // any number of times
	OncePerImage                      // exactly once
	OncePerTask                       // exactly once for each task
	AtMostOncePerImage                // once or not at all
	AtMostOncePerTask                 // for each task once or not at all
	OncePerThread                     // exactly once for each thread
	AtMostOncePerThread               // for each thread once or not at all
	nOccurs             = iota
)

var occursNames = [nOccurs]string{"any", "1 per image", "1 per task", "0-1 per image", "0-1 per task", "1 per thread", "0-1 per thread"}

// String returns the wording of the documentation.
func (o Occurs) String() string {
	if int(o) < len(occursNames) {
		return occursNames[o]
	}
	return fmt.Sprintf("occurs %d", uint8(o))
}

// order checks that records come in the order that the rows declare:
//
//	head < tree < (task < mm < files < (thread < cpu)+)* < tail
//
// A section begins with the row that opens it, if it has one. Writer and
// Reader share it, so that we cannot write what we would not read.
type order struct {
	table  *Table
	at     Section
	image  map[Kind]int // records met so far
	task   map[Kind]int // records met in the present task
	thread map[Kind]int // records met in the present thread
	tasks  int64        // TASK records met
	want   int64        // tasks that TREE announced
}

func newOrder(t *Table) *order {
	return &order{table: t, image: map[Kind]int{}, task: map[Kind]int{}, thread: map[Kind]int{}}
}

// next accepts a record of row s with value rec, or says why it is out of
// place.
func (o *order) next(s *Spec, parent uint32, rec any) error {
	if s.Root && parent != 0 {
		return fmt.Errorf("parent %#x is not 0", parent)
	}
	if s.Kind == KindError {
		return nil // a writer can fail at any point
	}
	if err := o.enter(s); err != nil {
		return err
	}
	o.image[s.Kind]++
	o.task[s.Kind]++
	o.thread[s.Kind]++
	switch s.Occurs {
	case OncePerImage, AtMostOncePerImage:
		if o.image[s.Kind] > 1 {
			return fmt.Errorf("the second %s of the image", s.Name)
		}
	case OncePerTask, AtMostOncePerTask:
		if o.task[s.Kind] > 1 {
			return fmt.Errorf("the second %s of the task", s.Name)
		}
	case OncePerThread, AtMostOncePerThread:
		if o.thread[s.Kind] > 1 {
			return fmt.Errorf("the second %s of the thread", s.Name)
		}
	}
	if tree, ok := rec.(*Tree); ok {
		o.want = int64(tree.Tasks)
	}
	return nil
}

// enter moves to the section of s.
func (o *order) enter(s *Spec) error {
	switch {
	case o.at == 0 && s.Kind != KindHead:
		return fmt.Errorf("the image does not begin with HEAD")
	case o.at == InTail && s.Kind != KindTail:
		return fmt.Errorf("comes after SUM, where only TAIL may follow")
	case s.Section == Anywhere:
		return nil
	case s.Section == InTask && s.Opens:
		if o.at < InTree {
			return fmt.Errorf("comes before TREE")
		}
		if o.tasks++; o.tasks > o.want {
			return fmt.Errorf("TREE announces %d tasks, and this is one more", o.want)
		}
		err := o.endTask()
		o.at = InTask
		clear(o.task)
		clear(o.thread)
		return err
	case s.Section == InThread && s.Opens && o.at == InCPU:
		err := o.lacks(OncePerThread, o.thread)
		o.at = InThread
		clear(o.thread)
		return err
	case s.Section < o.at:
		return fmt.Errorf("belongs into section %v, and section %v has begun", s.Section, o.at)
	case s.Section == o.at:
		return nil
	case s.Section > InTask && s.Section < InTail && o.at < InTask:
		return fmt.Errorf("comes before the first TASK")
	case !s.Opens && o.opener(s.Section) != "":
		return fmt.Errorf("section %v begins with %s", s.Section, o.opener(s.Section))
	case s.Section == InTail:
		o.at = InTail
		return o.end()
	}
	o.at = s.Section
	return nil
}

// opener names the row that opens a section, or returns "".
func (o *order) opener(section Section) string {
	for i := range o.table.specs {
		if s := &o.table.specs[i]; s.Section == section && s.Opens {
			return s.Name
		}
	}
	return ""
}

// endTask checks that the task that ends here lacks nothing.
func (o *order) endTask() error {
	if o.at < InTask {
		return nil
	}
	if err := o.lacks(OncePerTask, o.task); err != nil {
		return err
	}
	return o.lacks(OncePerThread, o.thread)
}

// end checks that the image lacks nothing but its tail.
func (o *order) end() error {
	if o.tasks != o.want {
		return fmt.Errorf("TREE announces %d tasks, and %d are there", o.want, o.tasks)
	}
	if o.tasks > 0 {
		if err := o.endTask(); err != nil {
			return err
		}
	}
	return o.lacks(OncePerImage, o.image)
}

func (o *order) lacks(occurs Occurs, seen map[Kind]int) error {
	for i := range o.table.specs {
		s := &o.table.specs[i]
		if s.Occurs == occurs && s.Section != InTail && seen[s.Kind] == 0 {
			return fmt.Errorf("%s is missing before it", s.Name)
		}
	}
	return nil
}
