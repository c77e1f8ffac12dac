"""What algorithms that follow a policy's gradient share: settings, acting, what is taken of fragments. No torch."""
