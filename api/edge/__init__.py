"""What a request passes before an endpoint sees it, and what every answer gets on its way out."""
