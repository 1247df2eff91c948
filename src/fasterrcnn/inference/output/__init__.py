"""What `fasterrcnn predict` leaves behind: pictures, videos, crops and tables, always whole, and a record to go on."""
