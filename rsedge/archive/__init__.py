"""A bundle over an archive of scenes: several processes, each scene mapped once, whatever is killed meanwhile."""
