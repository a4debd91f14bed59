package tracer

// State returns what the task will go on with: its own state as it was
// borrowed, or what Become has set. An interrupted restartable sequence is
// already aborted in it, as the kernel would have done.
func (r *Remote) State() (State, error) {
	if err := r.ready(); err != nil {
		return State{}, err
	}
	if r.final.Xstate != nil {
		return r.final, nil
	}
	s := r.final
	var err error
	s.Xstate, err = r.e.Xstate() // programs leave it alone
	return s, err
}

// State is what a stopped task that is not borrowed will go on with.
func (e *Tracee) State() (s State, err error) {
	if s.Regs, err = e.Regs(); err != nil {
		return State{}, err
	}
	if s.Sigmask, err = e.Sigmask(); err != nil {
		return State{}, err
	}
	s.Xstate, err = e.Xstate()
	return s, err
}
