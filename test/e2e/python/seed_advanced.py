# Build and run a custom image
instance.docker.build("test:latest", context="/workspace").wait()
instance.docker.run("test:latest", detach=True, name="test-container").wait()

# Verify it's running
ps_result = instance.docker.ps()
ps_result.wait()
print(ps_result.stdout.read())
