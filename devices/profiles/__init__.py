"""Device profiles and power modes; ``shipped`` holds those that come with the package."""
