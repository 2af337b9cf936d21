//! The TaskPlatform custom resource: its type, defaults and validation.
