from mixer_jax.config import default_config
def get_config():
    config = default_config()
    config.model.variant = "Pico/2"
    return config
