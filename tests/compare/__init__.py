"""Random configurations, solved by diffrax and by ndekit: `make compare`."""
