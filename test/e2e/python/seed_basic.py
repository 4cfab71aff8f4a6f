from beta9 import Image, Sandbox

image = Image(python_version="python3.11").with_docker()
sandbox = Sandbox(image=image, docker_enabled=True)
instance = sandbox.create()

# Test Docker is working
result = instance.docker.run("hello-world")
result.wait()
print(result.stdout.read())

instance.terminate()
