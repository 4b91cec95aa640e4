"""What can be proven about AWS without an account: an emulated one, the services run as its templates say."""
