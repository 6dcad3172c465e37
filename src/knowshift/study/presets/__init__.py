"""Plans that come with knowshift."""
