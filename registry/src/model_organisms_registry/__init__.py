"""Registry of the culture collection: versions, gates, logs and serves model organisms."""
