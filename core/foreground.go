package core

// foreground puts the groups that were in the foreground of terminals of the
// tree there again. A group that has ended leaves its place to the session's
// leader.
func (r *restart) foreground() error {
	for _, p := range r.plants[1:] {
		if group := r.groups[p.builder.Foreground()]; p.leads && group != 0 {
			if err := p.builder.SetForeground(group); err != nil {
				return err
			}
		}
	}
	return nil
}
